"""What is read from the text of a script, without following its paths: loops, classes, data, functions."""
