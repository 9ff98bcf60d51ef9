"""Tools for assistants: the command's own answers, over the Model Context Protocol."""
