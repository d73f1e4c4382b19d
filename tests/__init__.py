"""One property a file, over the table in zoo.py."""
