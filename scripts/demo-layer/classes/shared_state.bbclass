# Shared state: `shared_state_store` after a task keeps the directory in its flag `shared-from` as an
# archive that the hash of the task names, and copies it to the directory in its flag `shared-to`. A
# later build takes it from SSTATE_DIR or SSTATE_MIRRORS by `shared_state_restore`, instead of running
# the task.

BB_HASHCHECK_FUNCTION = "shared_state_found"

def shared_state_name(recipe, task, hash):
    return f"{recipe}:{task}:{hash}.tgz"

def shared_state_fetcher(name, d):
    """Returns a fetcher that looks for an archive at the mirrors."""
    local = bb.data.createCopy(d)
    local.setVar("DL_DIR", d.getVar("SSTATE_DIR"))
    local.setVar("PREMIRRORS", d.getVar("SSTATE_MIRRORS"))
    local.setVar("MIRRORS", "")
    return bb.fetch2.Fetch([f"file://{name};downloadfilename={name}"], local)

def shared_state_found(sq_data, d, **options):
    """Returns the tasks whose results exist."""
    import os

    def is_found(tid):
        recipe = os.path.basename(bb.runqueue.fn_from_tid(tid)).split("_")[0]
        name = shared_state_name(recipe, bb.runqueue.taskname_from_tid(tid), sq_data["hash"][tid])
        if os.path.exists(os.path.join(d.getVar("SSTATE_DIR"), name)):
            return True
        if not (d.getVar("SSTATE_MIRRORS") or "").strip():
            return False
        try:
            shared_state_fetcher(name, d).checkstatus()
        except bb.fetch2.BBFetchException:
            return False
        return True

    return {tid for tid in sq_data["hash"] if is_found(tid)}

python shared_state_store() {
    import subprocess

    task = d.getVar("BB_RUNTASK")
    made = d.getVarFlag(task, "shared-from")
    directory = d.getVar("SSTATE_DIR")
    os.makedirs(directory, exist_ok=True)
    name = shared_state_name(d.getVar("PN"), task, d.getVar("BB_TASKHASH"))
    archive = os.path.join(directory, name)
    subprocess.check_call(["tar", "-C", made, "-czf", archive + ".tmp", "."])
    os.rename(archive + ".tmp", archive)
    shared_state_install(archive, task, d)
}

def shared_state_restore(d):
    task = d.getVar("BB_RUNTASK").removesuffix("_setscene")
    name = shared_state_name(d.getVar("PN"), task, d.getVar("BB_TASKHASH"))
    archive = os.path.join(d.getVar("SSTATE_DIR"), name)
    if not os.path.exists(archive):
        shared_state_fetcher(name, d).download()
    shared_state_install(archive, task, d)

def shared_state_install(archive, task, d):
    import subprocess

    directory = d.getVarFlag(task, "shared-to")
    os.makedirs(directory, exist_ok=True)
    subprocess.check_call(["tar", "-C", directory, "-xzf", archive])
