"""Where does the change sit? Read from the files alone, in NumPy."""
