"""What a dataset's pictures and labels look like before anything is learned: copies, near-copies, doubtful labels."""
