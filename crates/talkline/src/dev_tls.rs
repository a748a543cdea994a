//! A certificate for localhost, for trying SDKs that insist on `wss`.
//!
//! The CA's private key signs one certificate and is never written down, so trusting the CA trusts
//! that certificate and nothing else.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;

/// A certificate is made anew when it is older than this. Chromium and Apple refuse one that is
/// valid for longer than about 400 days.
const RENEW_AFTER: Duration = Duration::from_secs(300 * 24 * 3600);
const VALID_DAYS: i64 = 397;
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// A development certificate on disk, and the TLS settings that use it.
pub(crate) struct DevCertificate {
    /// For the listener.
    pub(crate) server: Arc<ServerConfig>,
    /// What clients have to trust.
    pub(crate) ca: PathBuf,
}

impl DevCertificate {
    /// Shell lines that make Node's and Python's SDKs trust the certificate.
    pub(crate) fn trust_lines(&self) -> String {
        let ca = shell_quoted(&self.ca.display().to_string());
        format!(
            "For clients on this machine (in their shell, not in the relay's):\n\
             export NODE_EXTRA_CA_CERTS={ca}\n\
             export SSL_CERT_FILE={ca}"
        )
    }
}

/// `$XDG_DATA_HOME/talkline/dev-tls`, else `~/.local/share/talkline/dev-tls`.
pub(crate) fn directory() -> anyhow::Result<PathBuf> {
    let data = match std::env::var_os("XDG_DATA_HOME").filter(|path| Path::new(path).is_absolute())
    {
        Some(data) => PathBuf::from(data),
        None => {
            let home = std::env::var_os("HOME")
                .context("--tls-dev needs HOME or XDG_DATA_HOME to keep its certificate in")?;
            Path::new(&home).join(".local/share")
        }
    };
    Ok(data.join("talkline/dev-tls"))
}

/// Uses the certificate in `directory`, or makes one.
pub(crate) fn load_or_make(directory: &Path) -> anyhow::Result<DevCertificate> {
    let [ca, cert, key] = ["ca.pem", "cert.pem", "key.pem"].map(|name| directory.join(name));
    if !is_fresh(&[&ca, &cert, &key]) {
        make(directory, &ca, &cert, &key)
            .with_context(|| format!("no certificate could be made in {}", directory.display()))?;
    }
    let server = talkline_gateway::tls::server_config(&cert, &key)?;
    Ok(DevCertificate { server, ca })
}

fn is_fresh(files: &[&Path]) -> bool {
    files.iter().all(|file| {
        let made = fs::metadata(file).and_then(|metadata| metadata.modified());
        made.is_ok_and(|made| {
            SystemTime::now()
                .duration_since(made)
                .is_ok_and(|age| age < RENEW_AFTER)
        })
    })
}

fn make(directory: &Path, ca: &Path, cert: &Path, key: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let (issuer, leaf, leaf_key) = generate()?;
    write(ca, &issuer.pem(), 0o644)?;
    write(cert, &leaf.pem(), 0o644)?;
    write(key, &leaf_key.serialize_pem(), 0o600)
}

/// A CA that may sign for localhost only, and one certificate signed by it.
pub(crate) fn generate() -> anyhow::Result<(
    CertifiedIssuer<'static, KeyPair>,
    rcgen::Certificate,
    KeyPair,
)> {
    let now = time::OffsetDateTime::now_utc();
    // Clocks of containers and hosts differ by minutes.
    let (from, until) = (
        now - time::Duration::days(1),
        now + time::Duration::days(VALID_DAYS),
    );

    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    ca.distinguished_name.push(
        DnType::CommonName,
        "Talkline development CA (localhost only)",
    );
    (ca.not_before, ca.not_after) = (from, until);
    let issuer = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;

    let mut leaf = CertificateParams::new(NAMES.map(String::from))?;
    leaf.distinguished_name
        .push(DnType::CommonName, "localhost");
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    (leaf.not_before, leaf.not_after) = (from, until);
    let leaf_key = KeyPair::generate()?;
    let leaf = leaf.signed_by(&leaf_key, &issuer)?;
    Ok((issuer, leaf, leaf_key))
}

/// Writes beside the file and renames, so that a reader sees the old or the new one.
fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let beside = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    Ok(())
}

fn shell_quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_made_once_and_used_again() {
        let directory =
            std::env::temp_dir().join(format!("talkline-dev-tls-{}", std::process::id()));
        let first = load_or_make(&directory).unwrap();
        let before = fs::read(&first.ca).unwrap();
        let second = load_or_make(&directory).unwrap();
        assert_eq!(before, fs::read(&second.ca).unwrap());
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(directory.join("key.pem"))
                .unwrap()
                .permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn trust_lines_survive_odd_paths() {
        assert_eq!(shell_quoted("/a/b-c.pem"), "/a/b-c.pem");
        assert_eq!(shell_quoted("/a b/it's"), r"'/a b/it'\''s'");
    }
}
