"""What kind of object each name of a script holds, followed from statement to statement."""
