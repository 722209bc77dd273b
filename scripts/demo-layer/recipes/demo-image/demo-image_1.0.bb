SUMMARY = "A root file system with the packages of the demo"
DEPENDS = "greeting"

do_fetch[noexec] = "1"
do_unpack[noexec] = "1"
do_compile[noexec] = "1"
do_install[noexec] = "1"
do_package[noexec] = "1"
deltask package_write_deb
deltask package_write_deb_setscene

addtask image before do_build
do_image[deptask] = "do_package_write_deb"
do_image[cleandirs] = "${WORKDIR}/rootfs"
do_image() {
    for package in ${DEPENDS}; do
        dpkg-deb --extract ${DEPLOY_DIR_DEB}/${package}_*.deb ${WORKDIR}/rootfs
    done
    mkdir -p ${DEPLOY_DIR_IMAGE}
    tar -C ${WORKDIR}/rootfs --sort=name --mtime=@${SOURCE_DATE_EPOCH} --owner=0 --group=0 \
        -czf ${DEPLOY_DIR_IMAGE}/${PN}-${MACHINE}.tar.gz .
}
