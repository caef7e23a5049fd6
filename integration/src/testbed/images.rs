//! The images of demo and stories, built from Debian 12's packages.

use crate::testbed::{debian::Archive, host, layer_tar::LayerTar, oci};
use anyhow::{Context, Result};
use guest_image::{cache, progress::Step};
use std::path::{Path, PathBuf};

/// One static binary and links to it, one layer.
pub const BUSYBOX: &str = "docker.io/casemate/busybox:1";
/// As [`BUSYBOX`] with one more file, and so with another layer and root hash.
pub const BUSYBOX_CHANGED: &str = "docker.io/casemate/busybox:changed";
/// Shell, libraries, redis and whiteouts: three layers.
pub const REDIS: &str = "docker.io/casemate/redis:demo";
/// As [`REDIS`] with one file changed in the last layer.
pub const REDIS_CHANGED: &str = "docker.io/casemate/redis:changed";
/// Shell, libraries and curl, by which a container asks for reports of its guest: two layers.
pub const CURL: &str = "docker.io/casemate/curl:1";

/// A web server that asks redis on the pod's loopback how many visits there were: three layers.
pub const NGINX: &str = "docker.io/casemate/nginx:1";
/// As [`NGINX`] with another configuration.
pub const NGINX_CHANGED: &str = "docker.io/casemate/nginx:changed";
/// What a pod's own container runs on runc: it does nothing.
pub const PAUSE: &str = "docker.io/casemate/pause:1";

/// Every image.
pub const ALL: [&str; 8] = [BUSYBOX, BUSYBOX_CHANGED, REDIS, REDIS_CHANGED, CURL, NGINX, NGINX_CHANGED, PAUSE];

/// `PATH` of every image.
pub const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const BASE_PACKAGES: &[&str] = &["libc6", "dash", "busybox-static"];
/// redis-server is a link to redis-tools' redis-check-rdb; the rest is what that binary loads.
const REDIS_PACKAGES: &[&str] = &[
    "redis-server",
    "redis-tools",
    "libjemalloc2",
    "liblzf1",
    "libatomic1",
    "libssl3",
    "libsystemd0",
    "libstdc++6",
    "libgcc-s1",
    "libcap2",
    "libgcrypt20",
    "libgpg-error0",
    "liblz4-1",
    "liblzma5",
    "libzstd1",
];
/// With every library that it loads.
const CURL_PACKAGES: &[&str] = &[
    "curl",
    "libcurl4",
    "zlib1g",
    "libnghttp2-14",
    "libidn2-0",
    "libunistring2",
    "librtmp1",
    "libgnutls30",
    "libhogweed6",
    "libnettle8",
    "libgmp10",
    "libp11-kit0",
    "libffi8",
    "libtasn1-6",
    "libssh2-1",
    "libpsl5",
    "libssl3",
    "libgssapi-krb5-2",
    "libkrb5-3",
    "libk5crypto3",
    "libkrb5support0",
    "libcom-err2",
    "libkeyutils1",
    "libldap-2.5-0",
    "libsasl2-2",
    "libzstd1",
    "libbrotli1",
];
/// With every library that it and its Lua module load.
const NGINX_PACKAGES: &[&str] = &[
    "nginx",
    "libnginx-mod-http-ndk",
    "libnginx-mod-http-lua",
    "libluajit2-5.1-2",
    "lua-resty-core",
    "lua-resty-lrucache",
    "libcrypt1",
    "libpcre2-8-0",
    "libpcre3",
    "libssl3",
    "zlib1g",
    "libgcc-s1",
];
/// One process, which counts visits by redis' inline protocol.
const NGINX_CONFIGURATION: &str = r#"load_module /usr/lib/nginx/modules/ndk_http_module.so;
load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;
user root;
daemon off;
master_process off;
pid /tmp/nginx.pid;
error_log stderr;
events {}
http {
    access_log off;
    client_body_temp_path /tmp/body;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi;
    scgi_temp_path /tmp/scgi;
    lua_package_path "/usr/share/lua/5.1/?.lua;;";
    server {
        listen 80;
        listen [::]:80;
        location / {
            default_type text/plain;
            content_by_lua_block {
                local redis = ngx.socket.tcp()
                local connected, why = redis:connect("127.0.0.1", 6379)
                if not connected then ngx.status = 502; ngx.say(why) return end
                redis:send("INCR visits\r\n")
                ngx.say("visit " .. redis:receive():sub(2))
                redis:close()
            }
        }
    }
}
"#;
const APPLETS: &[&str] = &[
    "cat",
    "chmod",
    "cp",
    "cut",
    "date",
    "dd",
    "df",
    "echo",
    "env",
    "false",
    "find",
    "free",
    "grep",
    "head",
    "hostname",
    "httpd",
    "id",
    "ip",
    "kill",
    "ls",
    "mkdir",
    "mkfifo",
    "mount",
    "mv",
    "nc",
    "ps",
    "rm",
    "sed",
    "seq",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "tail",
    "tee",
    "touch",
    "tr",
    "true",
    "uname",
    "vi",
    "wc",
    "yes",
];
/// A file of the busybox image that no program needs, for stories that damage a layer.
pub const DATA_FILE: &str = "usr/share/data";
const DATA_BYTES: usize = 256 * 1024;

/// Increased when the recipe changes in a way that no constant shows.
const RECIPE: &str = "3";

/// Files of the images, in `dir`.
pub struct Images {
    /// Layout tars, one per reference.
    pub files: Vec<PathBuf>,
}

/// The images from the cache; built first if they are not there.
pub fn obtain() -> Result<Images> {
    let key = cache::key(&[
        RECIPE.as_bytes(),
        BASE_PACKAGES.join(" ").as_bytes(),
        REDIS_PACKAGES.join(" ").as_bytes(),
        CURL_PACKAGES.join(" ").as_bytes(),
        NGINX_PACKAGES.join(" ").as_bytes(),
        NGINX_CONFIGURATION.as_bytes(),
        APPLETS.join(" ").as_bytes(),
    ]);
    let dir = host::cache_dir("images")?.join(&key);
    let names = ALL.map(|reference| dir.join(file_name(reference)));
    if !names.iter().all(|file| file.exists()) {
        build(&dir)?;
    }
    Ok(Images { files: names.to_vec() })
}

/// `docker.io/casemate/redis:demo` lies in `redis-demo.tar`.
pub fn file_name(reference: &str) -> String {
    let name = reference.rsplit('/').next().unwrap_or(reference);
    format!("{}.tar", name.replace(':', "-"))
}

fn build(dir: &Path) -> Result<()> {
    let mut step = Step::start("images of Debian packages for demo and stories");
    let archive = Archive::open("bookworm")?;
    archive.refresh()?;
    let debs = dir.join("debs");
    let base = archive.download(BASE_PACKAGES, &debs)?;
    let redis = archive.download(REDIS_PACKAGES, &debs)?;
    let curl = archive.download(CURL_PACKAGES, &debs)?;
    let nginx = archive.download(NGINX_PACKAGES, &debs)?;
    step.at(format_args!("layers"));

    let busybox = [oci::Layer::from_tar(&busybox_layer(&base[2], &debs, false)?)?];
    let busybox_changed = [oci::Layer::from_tar(&busybox_layer(&base[2], &debs, true)?)?];
    let below = [
        oci::Layer::from_tar(&base_layer(&base)?)?,
        oci::Layer::from_tar(&packages_layer(&redis)?)?,
    ];
    let with_curl = [below[0].clone(), oci::Layer::from_tar(&packages_layer(&curl)?)?];
    let nginx = oci::Layer::from_tar(&packages_layer(&nginx)?)?;
    let with_nginx = |changed| -> Result<Vec<oci::Layer>> {
        let configuration = oci::Layer::from_tar(&configuration_layer(changed)?)?;
        Ok(vec![below[0].clone(), nginx.clone(), configuration])
    };
    let three = |changed| -> Result<Vec<oci::Layer>> {
        Ok(below
            .iter()
            .cloned()
            .chain([oci::Layer::from_tar(&whiteout_layer(changed)?)?])
            .collect())
    };
    let server = ["redis-server", "--save", "", "--bind", "127.0.0.1"];
    for (reference, layers, command) in [
        (BUSYBOX, &busybox[..], &["sh"][..]),
        (BUSYBOX_CHANGED, &busybox_changed[..], &["sh"][..]),
        (REDIS, &three(false)?[..], &server[..]),
        (REDIS_CHANGED, &three(true)?[..], &server[..]),
        (CURL, &with_curl[..], &["sh"][..]),
        (NGINX, &with_nginx(false)?[..], &["nginx", "-c", "/etc/nginx.conf"][..]),
        (NGINX_CHANGED, &with_nginx(true)?[..], &["nginx", "-c", "/etc/nginx.conf"][..]),
        (PAUSE, &busybox[..], &["tail", "-f", "/dev/null"][..]),
    ] {
        let image = oci::Image {
            reference,
            layers,
            command,
            environment: &[PATH],
        };
        cache::write_whole(&dir.join(file_name(reference)), &image.to_layout_tar()?)?;
    }
    std::fs::remove_dir_all(&debs).context("cannot remove the downloaded packages")?;
    step.done();
    Ok(())
}

/// Directories, accounts and the applets of a root file system.
fn skeleton(layer: &mut LayerTar) -> Result<()> {
    for (path, mode) in [
        ("bin", 0o755),
        ("dev", 0o755),
        ("etc", 0o755),
        ("proc", 0o755),
        ("root", 0o700),
        ("run", 0o755),
        ("sys", 0o755),
        ("tmp", 0o1777),
    ] {
        layer.directory(path, mode)?;
    }
    layer.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n")?;
    layer.file("etc/group", 0o644, b"root:x:0:\n")?;
    for applet in APPLETS {
        layer.symlink(&format!("bin/{applet}"), "busybox")?;
    }
    Ok(())
}

fn busybox_layer(deb: &Path, scratch: &Path, changed: bool) -> Result<Vec<u8>> {
    let unpacked = scratch.join("busybox");
    host::run(std::process::Command::new("dpkg-deb").arg("-x").arg(deb).arg(&unpacked))?;
    let binary = ["bin/busybox", "usr/bin/busybox"]
        .map(|place| unpacked.join(place))
        .into_iter()
        .find(|file| file.exists());
    let binary = std::fs::read(binary.context("busybox-static has no busybox")?).context("cannot read busybox")?;
    let mut layer = LayerTar::default();
    skeleton(&mut layer)?;
    layer.file("bin/busybox", 0o755, &binary)?;
    layer.symlink("bin/sh", "busybox")?;
    layer.directory("usr", 0o755)?;
    layer.directory("usr/share", 0o755)?;
    layer.file(DATA_FILE, 0o644, &data())?;
    if changed {
        layer.file("etc/changed", 0o644, b"one more file\n")?;
    }
    layer.finish()
}

/// Content of [`DATA_FILE`]: lines that differ, so that its place in a file system image can be found.
pub fn data() -> Vec<u8> {
    let lines = (0..).flat_map(|n: u32| format!("line {n:08}\n").into_bytes());
    lines.take(DATA_BYTES).collect()
}

fn base_layer(debs: &[PathBuf]) -> Result<Vec<u8>> {
    let mut layer = LayerTar::default();
    skeleton(&mut layer)?;
    for deb in debs {
        layer.package(deb)?;
    }
    layer.file("etc/motd", 0o644, b"removed by the last layer\n")?;
    layer.finish()
}

fn packages_layer(debs: &[PathBuf]) -> Result<Vec<u8>> {
    let mut layer = LayerTar::default();
    for deb in debs {
        layer.package(deb)?;
    }
    layer.finish()
}

fn configuration_layer(changed: bool) -> Result<Vec<u8>> {
    let mut layer = LayerTar::default();
    let visits = if changed { "hits" } else { "visits" };
    layer.file("etc/nginx.conf", 0o644, NGINX_CONFIGURATION.replace("visits", visits).as_bytes())?;
    // Logs of the time before it has read its configuration.
    for directory in ["var", "var/log", "var/log/nginx", "var/lib", "var/lib/nginx"] {
        layer.directory(directory, 0o755)?;
    }
    layer.finish()
}

/// Removes a file, the content of a directory and a directory; adds a greeting.
fn whiteout_layer(changed: bool) -> Result<Vec<u8>> {
    let mut layer = LayerTar::default();
    layer.whiteout("etc/motd")?;
    layer.opaque("usr/share/doc")?;
    layer.whiteout("lib/systemd")?;
    layer.file(
        "etc/casemate-demo",
        0o644,
        if changed { b"changed by somebody\n" } else { b"as it was built\n" },
    )?;
    layer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_has_one_file() {
        assert_eq!(file_name(REDIS), "redis-demo.tar");
        assert_eq!(file_name(BUSYBOX_CHANGED), "busybox-changed.tar");
    }
}
