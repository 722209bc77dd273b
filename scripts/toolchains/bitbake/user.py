"""The user who runs BitBake, which refuses to be root in the layer `core`."""

import os
import pwd

NAME = "builder"


def become(*owned):
    """Gives files and directories to the user, and drops the rights of root."""
    if os.geteuid() != 0:
        return
    user = pwd.getpwnam(NAME)
    for path in owned:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.chown(path, user.pw_uid, user.pw_gid)
        _open_to_all(os.path.dirname(path))
    os.initgroups(NAME, user.pw_gid)
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    os.environ.update(HOME=user.pw_dir, USER=NAME, LOGNAME=NAME)
    os.umask(0o022)


def _open_to_all(directory):
    """Lets all users pass a directory and those above it."""
    while directory != "/":
        mode = os.stat(directory).st_mode & 0o777
        if mode & 0o111 != 0o111:
            os.chmod(directory, mode | 0o111)
        directory = os.path.dirname(directory)
