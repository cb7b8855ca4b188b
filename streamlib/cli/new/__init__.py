"""`streamlib new`: a project to begin with.

template/     its files; `$project`, `$package` and `$version` in them are replaced, `.tmpl` is taken off
project.py    names, and the folder
command.py    the sub-command
"""
