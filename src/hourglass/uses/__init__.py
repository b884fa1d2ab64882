"""What a waist is good for, a folder per task. Uses know interfaces, never a paper."""
