//! Files of machines, toolchains and guests, which the host reads as text.

use std::fs;

use config::machine::Machine;
use config::manifest;
use config::progress;
use config::task::{BreakpointState, Package, Provenance, Task};
use store::content_manifest::ContentManifest;

use crate::harness::Parser;

/// A list of manifests may need so many times its size: a short line becomes two strings.
const MANIFEST_FACTOR: usize = 64;

const HASH: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// Checks that a list of manifests is written as it was read.
fn check_manifests(text: &str) {
    if let Ok(list) = manifest::parse_local(text) {
        let printed = manifest::print_local(&list);
        assert_eq!(manifest::parse_local(&printed).unwrap(), list);
    }
}

/// Manifests of controllers and of workers of build2.
pub(crate) fn build2_manifests() -> Parser {
    let valid = [
        ": 1\nsession: /hello/1.0.0/x86_64-linux-gnu/linux-gcc/default/public/0.17.0/1\nchallenge: c0ffee\n\
         result-url: https://ci.example.org/?build-result\n:\nname: hello\ntarget-config: config.cxx=g++ \\\n\
          -Wall\\\n\\\nsecond line\nempty:\n",
        ": 1\r\n# comment\r\nupdate-log:\r\n\\\r\nC:\\dir\\\\\r\nwrapped\\\r\n line\r\n\\\r\nstatus: warning",
        ": 1\nold:\\\n\tx \n#y\n\\\n:1\nä: ö\n",
    ];
    Parser::of_text(&valid, 2 * MANIFEST_FACTOR, |text| {
        let local = manifest::parse_local(text);
        let Ok(list) = manifest::parse(text) else {
            return;
        };
        assert_eq!(local.as_ref(), Ok(&list));
        assert_eq!(manifest::parse(&manifest::print(&list)).as_ref(), Ok(&list));
        assert_eq!(manifest::bodies(text).unwrap().len(), list.len());
        if let Ok(longer) = manifest::append(text, "added", "value") {
            assert!(longer.starts_with(text));
        }
    })
}

pub(crate) fn machine_manifests() -> Parser {
    let valid = [
        ": 1\nid: linux-1\nname: linux\nsummary: Linux\ntype: kvm\nram-minimum: 262144\ncpus: 2\n\
         parallel-max: 4\ndisk-growth: 1048576\ndisk-cache: writeback\nstart-seconds-max: 60\n\
         silence-seconds-max: 600\ntotal-seconds-max: 3600\nfirmware: uefi\nfrozen: auto\n\
         egress: deb.debian.org:80 192.0.2.0/24:443\nmac: de:ad:be:ef:00:01\n",
        ": 1\nid: c\nsummary:\\\ntwo\nlines\n\\\ntype: nspawn\negress: nat\noptions: --a \"b c\" 'd'\n",
        ": 1\nid: x\nsummary: x\nkernel: vmlinuz\ninitrd: initrd\ncmdline: root=/dev/vda quiet\n",
    ];
    Parser::of_text(&valid, MANIFEST_FACTOR, |text| {
        let _ = Machine::parse(text);
    })
}

pub(crate) fn provenance() -> Parser {
    let valid = [
        &format!(": 1\nrevision-uuid: u-u\ntoolchain-id: {HASH}\nbootstrap-version: 1\n"),
        ": 1\nstatus: success\nmessage: installed\n",
    ];
    Parser::of_text(&valid, MANIFEST_FACTOR, |text| {
        if let Ok(provenance) = Provenance::parse(text) {
            assert_eq!(Provenance::parse(&provenance.print()), Ok(provenance));
        }
    })
}

pub(crate) fn task_manifests() -> Parser {
    let valid = format!(
        ": 1\nbuild: 42\nmachine: linux-gcc_6\ntoolchain: default\ninteractive: warning\n\
         hold: true\n:\nsource: hello.tar.gz\nsha256: {HASH}\n:\nsource: b\nsha256: {HASH}\n"
    );
    Parser::of_text(&[&valid], MANIFEST_FACTOR, |text| {
        if let Ok(task) = Task::parse(text) {
            assert_eq!(Task::parse(&task.print()), Ok(task));
        }
    })
}

pub(crate) fn package_lists() -> Parser {
    let valid = ": 1\npackage: hello\nversion: 1.0\nrecipe-revision: r0\narchitecture: x86_64\n\
        checksum: c0ffee\nfile: hello_1.0.ipk\nrevision: r0.1\n:\npackage: b\nversion: 2\n\
        recipe-revision: r1\narchitecture: all\nchecksum: c\nfile: b.ipk\n";
    Parser::of_text(&[valid], MANIFEST_FACTOR, |text| {
        let _ = Package::parse_list(text);
        check_manifests(text);
    })
}

pub(crate) fn breakpoints() -> Parser {
    let valid = [": 1\nstate: waiting\n", ": 1\nstate: over\n"];
    Parser::of_text(&valid, MANIFEST_FACTOR, |text| {
        let _ = BreakpointState::parse(text);
    })
}

/// The texts of a checkpoint: the reason why an image of a sender has no checkpoint.
pub(crate) fn checkpoint_texts() -> Parser {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let valid = [
        "the worker does not wait for its task\n",
        "buildhost-frozen 1\nqemu\n-m\n512\n",
    ];
    let mut parser = Parser::of_text(&valid, 0, |_| {});
    parser.memory_factor = 8;
    parser.parse = Box::new(move |bytes| {
        fs::File::create(directory.path().join("frozen.unfit"))
            .and_then(|mut file| std::io::Write::write_all(&mut file, bytes))
            .unwrap();
        let reason = guest::checkpoint::unsupported_reason(directory.path());
        assert_eq!(reason.as_deref(), std::str::from_utf8(bytes).ok());
    });
    parser
}

pub(crate) fn content_manifests() -> Parser {
    let one = format!(
        "buildhost contents 1\n40755 0 0 0 - .\n100644 0 0 12 {HASH} a%20b\n120777 7 8 0 {HASH} l\n"
    );
    let two = format!(
        "buildhost contents 2\n40755 0 0 0 - - - .\n100644 0 0 12 {HASH} - user.a%3d={HASH},user.b={HASH} f\n\
         20666 0 0 0 - 1:3 - null\n100755 0 0 9 {HASH} - security.capability={HASH} p%ff\n"
    );
    let three = format!(
        "buildhost contents 3\n40755 0 0 0 - - - .\n\
         100644 0 0 3145728 0={HASH},2={HASH} - user.a={HASH} disk.img\n120777 7 8 0 {HASH} - - l\n"
    );
    let other = ContentManifest::parse(&three).unwrap();
    Parser::of_text(&[&one, &two, &three], 32, move |text| {
        let Ok(manifest) = ContentManifest::parse(text) else {
            return;
        };
        assert_eq!(
            ContentManifest::parse(&manifest.print()).as_ref(),
            Ok(&manifest)
        );
        assert_eq!(manifest.compare(&manifest), []);
        drop(manifest.compare(&other));
    })
}

/// The logs of tasks: those of BitBake, and lines of the own format.
pub(crate) fn logs() -> Parser {
    let valid = [
        "buildhost-progress: clone 1:2 parse 10:20\nbuildhost-progress: task 1:3 errors 2 warnings 1\n",
        "Parsing recipes:   4% |##  | ETA:  0:00:10\rParsing of 2813 .bb files complete (2812 cached)\n\
         NOTE: Running setscene task 1 of 9 (a.bb)\nNOTE: Running noexec task 13 of 345 (h.bb)\n\
         WARNING: w\nERROR: e\nNOTE: Tasks Summary: Attempted 345 tasks of which 3\n",
    ];
    let mut parser = Parser::of_text(&valid, 0, |_| {});
    // A line is kept up to its limit, and copied once if it is not UTF-8.
    (parser.memory_constant, parser.memory_factor) = (64 * 1024, 0);
    parser.parse = Box::new(|bytes| {
        let (mut whole, mut parts) = (progress::Parser::default(), progress::Parser::default());
        whole.feed(bytes);
        bytes.chunks(7).for_each(|part| parts.feed(part));
        assert_eq!(whole.progress(), parts.progress());
    });
    parser
}
