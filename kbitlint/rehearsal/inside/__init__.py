"""The process in which a script is rehearsed: its code, the folder that it sees, its writes, its end, and the record of it."""
