# A Debian package of what a recipe installs. Its revision ends with the value of the PR service.

addtask package after do_install
do_package[cleandirs] = "${WORKDIR}/package"
do_package() {
    cp -a "${D}/." "${WORKDIR}/package/"
}

# BitBake takes the network from tasks without this flag.
do_package_write_deb[network] = "1"
do_package_write_deb[cleandirs] = "${WORKDIR}/deb"
do_package_write_deb[vardepsexclude] = "BB_TASKDEPDATA"
addtask package_write_deb after do_package before do_build
python do_package_write_deb() {
    import subprocess

    assign_revision(d)
    root = d.expand("${WORKDIR}/package")
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(d.getVar("PACKAGE_ARCH"), "all")
    version = d.expand("${PV}-${PKGR}")
    fields = {
        "Package": d.getVar("PN"),
        "Version": version,
        "Architecture": architecture,
        "Maintainer": "demo@example.org",
        "Description": d.getVar("SUMMARY"),
    }
    os.makedirs(root + "/DEBIAN", exist_ok=True)
    with open(root + "/DEBIAN/control", "w") as control:
        control.writelines(f"{name}: {value}\n" for name, value in fields.items())
    file = d.expand(f"${{WORKDIR}}/deb/${{PN}}_{version}_{architecture}.deb")
    subprocess.check_call(["dpkg-deb", "--root-owner-group", "--build", root, file])
}

def assign_revision(d):
    """Sets PRAUTO to the value that the PR service has for the hash of do_package."""
    host = d.getVar("PRSERV_HOST")
    if not host:
        return
    import prserv.serv

    tasks = d.getVar("BB_TASKDEPDATA", False).values()
    checksum = next(it[6] for it in tasks if (it[0], it[1]) == (d.getVar("PN"), "do_package"))
    address, port = host.split(":")
    connection = prserv.serv.connect(address, int(port))
    value = connection.getPR(d.getVar("PF"), d.getVar("PACKAGE_ARCH"), checksum)
    connection.close()
    d.setVar("PRAUTO", str(value))

do_package_write_deb[shared-from] = "${WORKDIR}/deb"
do_package_write_deb[shared-to] = "${DEPLOY_DIR_DEB}"
do_package_write_deb[postfuncs] += "shared_state_store"
addtask package_write_deb_setscene
do_package_write_deb_setscene[network] = "1"
python do_package_write_deb_setscene() {
    shared_state_restore(d)
}
