# The tasks of each recipe.

addtask fetch
do_fetch[network] = "1"
do_fetch[dirs] = "${DL_DIR}"
do_fetch[file-checksums] = "${@bb.fetch.get_checksum_file_list(d)}"
python do_fetch() {
    bb.fetch2.Fetch((d.getVar("SRC_URI") or "").split(), d).download()
}

addtask unpack after do_fetch
do_unpack[cleandirs] = "${UNPACKDIR}"
python do_unpack() {
    sources = bb.fetch2.Fetch((d.getVar("SRC_URI") or "").split(), d)
    sources.unpack(d.getVar("UNPACKDIR"))
}

addtask compile after do_unpack
do_compile[dirs] = "${B}"
do_compile() {
    make
}

addtask install after do_compile
do_install[dirs] = "${B}"
do_install[cleandirs] = "${D}"
do_install() {
    make install DESTDIR="${D}"
}

addtask build
do_build[noexec] = "1"
do_build[nostamp] = "1"
do_build() {
    :
}

# Other layers call these in shell tasks.
bbnote() {
    echo "NOTE: $*"
}
bbfatal() {
    echo "ERROR: $*"
    exit 1
}
