"""The verbs of the command line, one file each. Whatever is slow to import is imported inside the verbs."""
