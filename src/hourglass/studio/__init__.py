"""The browser app: the functions of the command line, with a mouse."""
