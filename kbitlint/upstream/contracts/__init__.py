"""What constructors of other libraries refuse or ignore, as rows of data by library and version."""
