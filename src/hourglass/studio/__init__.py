"""The browser app: the functions of the command line, with a mouse.

`app` puts the pages together, `server` answers on loopback, `corpus` reads the workspace for all pages, `views` turns what
was read into HTML in which no document can be anything but text, `figures` draws, and each page is a file of its own.
"""
