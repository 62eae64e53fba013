"""Pictures in, videos out: files and addresses that an assistant names, judged before anything is read or written."""
