# Records for the build host, as lines of JSON in the file BUILDHOST_RECORDS: how far BitBake is,
# which tasks failed, which revisions the PR service assigned, and where the packages are. The
# toolchain's `build` reads them. Handlers of tasks run in the processes of the tasks, those of
# other events in BitBake's server.

addhandler buildhost_record
buildhost_record[eventmask] = "bb.event.ParseStarted bb.event.ParseProgress bb.event.ParseCompleted bb.event.BuildStarted bb.runqueue.runQueueTaskStarted bb.runqueue.runQueueTaskCompleted bb.runqueue.runQueueTaskFailed bb.runqueue.runQueueTaskSkipped bb.build.TaskSucceeded bb.build.TaskFailed"
python buildhost_record() {
    import json

    def count(done, total):
        return {"done": done, "total": total}

    def ended_tasks(stats):
        return count(stats.completed + stats.failed + stats.skipped, stats.total)

    def task(d):
        return {name: d.getVar(name) or "" for name in ("PN", "PF", "PR", "PACKAGE_ARCH")}

    def package_hash(d):
        """Returns the hash of do_package, which the PR service is asked with."""
        data = d.getVar("BB_TASKDEPDATA", False) or {}
        found = [it[6] for it in data.values() if (it[0], it[1]) == (d.getVar("PN"), "do_package")]
        return found[0] if found else ""

    name = bb.event.getName(e)
    record = None
    if name == "ParseStarted":
        record = {"parse": count(0, e.total)}
    elif name == "ParseProgress":
        record = {"parse": count(e.current, e.total)}
    elif name == "ParseCompleted":
        record = {"parse": count(e.total, e.total)}
    elif name == "BuildStarted":
        names = "DEPLOY_DIR", "DEPLOY_DIR_IMAGE", "PKGDATA_DIR", "DL_DIR", "SSTATE_DIR"
        record = {"directories": {name: d.getVar(name) or "" for name in names}}
    elif name.startswith("runQueueTask"):
        record = {"tasks": ended_tasks(e.stats)}
    elif name == "TaskFailed":
        record = {"failed": {**task(d), "task": e.task, "log": e.logfile or ""}}
    elif name == "TaskSucceeded" and d.getVar("PRAUTO"):
        record = {"revision": {**task(d), "PRAUTO": d.getVar("PRAUTO"), "hash": package_hash(d)}}
    if record:
        with open(d.getVar("BUILDHOST_RECORDS"), "a") as file:
            file.write(json.dumps(record) + "\n")
}
