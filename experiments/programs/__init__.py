"""Short programs to copy: each trains one model with gradzip, and resumes from checkpoints."""
