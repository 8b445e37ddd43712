"""Parameters of constructors of other libraries, and names that they no longer export, as data by version."""
