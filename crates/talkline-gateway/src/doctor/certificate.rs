//! What a TLS server showed: its certificate, whether or not it was accepted.
//!
//! rustls does not parse certificates for display and its verifier keeps none that it refused, so a
//! verifier that asks the platform's notes them, and the few fields that tell a person something
//! are read here (X.509, RFC 5280; DER, ITU-T X.690).

use std::sync::{Arc, Mutex, PoisonError};

use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::tls::{TlsError, crypto_provider};

/// Names of a certificate that are shown.
const NAMES_MAX: usize = 12;

/// The end-entity certificate that was last presented.
#[derive(Clone, Debug, Default)]
pub(super) struct Presented(Arc<Mutex<Option<CertificateDer<'static>>>>);

impl Presented {
    pub(super) fn certificate(&self) -> Option<Certificate> {
        let der = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Certificate::parse(der.as_ref()?)
    }
}

/// TLS as [`crate::tls::client_config`] has it, noting the certificate that is presented.
pub(super) fn noting_client_config() -> Result<(Arc<ClientConfig>, Presented), TlsError> {
    let presented = Presented::default();
    let verifier = Noting {
        platform: Arc::new(rustls_platform_verifier::Verifier::new(crypto_provider())?),
        presented: presented.clone(),
    };
    let mut config = ClientConfig::builder_with_provider(crypto_provider())
        .with_safe_default_protocol_versions()?
        // The verdict stays the platform's: `Noting` has none of its own.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Each connection is to show what a first one sees.
    config.resumption = Resumption::disabled();
    Ok((Arc::new(config), presented))
}

/// Asks the platform's verifier, and remembers what it was asked about.
#[derive(Debug)]
struct Noting {
    platform: Arc<dyn ServerCertVerifier>,
    presented: Presented,
}

impl ServerCertVerifier for Noting {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self
            .presented
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(end_entity.clone().into_owned());
        self.platform
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.platform.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.platform.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.platform.supported_verify_schemes()
    }
}

/// The fields of a certificate that are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Certificate {
    /// `CN=…, O=…` of the issuer.
    pub(super) issuer: String,
    /// The names that it was made for.
    pub(super) names: Vec<String>,
    /// Seconds since 1970.
    pub(super) not_before: i64,
    /// Seconds since 1970.
    pub(super) not_after: i64,
}

impl Certificate {
    /// Reads DER; `None` where it is not a certificate as RFC 5280 has them.
    fn parse(der: &[u8]) -> Option<Self> {
        let (certificate, _) = expect(der, SEQUENCE)?;
        let (tbs, _) = expect(certificate, SEQUENCE)?;
        let rest = match element(tbs)? {
            (VERSION, _, rest) => rest,
            _ => tbs,
        };
        let (_serial, rest) = expect(rest, INTEGER)?;
        let (_algorithm, rest) = expect(rest, SEQUENCE)?;
        let (issuer, rest) = expect(rest, SEQUENCE)?;
        let (validity, rest) = expect(rest, SEQUENCE)?;
        let (from, until, _) = {
            let (tag, from, after) = element(validity)?;
            let (until_tag, until, end) = element(after)?;
            (time(tag, from)?, time(until_tag, until)?, end)
        };
        let (_subject, rest) = expect(rest, SEQUENCE)?;
        let (_key, mut rest) = expect(rest, SEQUENCE)?;
        let mut names = Vec::new();
        while let Some((tag, content, after)) = element(rest) {
            if tag == EXTENSIONS {
                names = alternative_names(content).unwrap_or_default();
            }
            rest = after;
        }
        Some(Self {
            issuer: distinguished_name(issuer).unwrap_or_default(),
            names,
            not_before: from,
            not_after: until,
        })
    }

    /// A product that inspects TLS, when the issuer looks like one.
    pub(super) fn inspecting_proxy(&self) -> Option<&'static str> {
        const ISSUERS: [(&str, &str); 18] = [
            ("zscaler", "Zscaler"),
            ("netskope", "Netskope"),
            ("goskope", "Netskope"),
            ("palo alto", "Palo Alto Networks"),
            ("fortinet", "Fortinet"),
            ("fortigate", "Fortinet"),
            ("blue coat", "Blue Coat"),
            ("cisco umbrella", "Cisco Umbrella"),
            ("check point", "Check Point"),
            ("sophos", "Sophos"),
            ("mcafee", "McAfee"),
            ("skyhigh", "Skyhigh"),
            ("forcepoint", "Forcepoint"),
            ("gateway ca - cloudflare", "Cloudflare Gateway"),
            ("mitmproxy", "mitmproxy"),
            ("charles proxy", "Charles Proxy"),
            ("portswigger", "Burp Suite"),
            ("squid", "Squid"),
        ];
        let issuer = self.issuer.to_lowercase();
        let found = ISSUERS.iter().find(|(part, _)| issuer.contains(part));
        found.map(|(_, product)| *product)
    }

    /// Whether the issuer is one of those that Azure's own certificates have (Microsoft Learn,
    /// "Azure Certificate Authority details").
    pub(super) fn is_issued_for_azure(&self) -> bool {
        self.issuer.contains("Microsoft") || self.issuer.contains("DigiCert")
    }
}

const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OBJECT_ID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// `[0] EXPLICIT` around the version.
const VERSION: u8 = 0xa0;
/// `[3] EXPLICIT` around the extensions.
const EXTENSIONS: u8 = 0xa3;
/// `[2] IMPLICIT IA5String` in a GeneralName.
const DNS_NAME: u8 = 0x82;
/// `[7] IMPLICIT OCTET STRING` in a GeneralName.
const IP_ADDRESS: u8 = 0x87;

const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const ORGANIZATION: &[u8] = &[0x55, 0x04, 0x0a];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// Tag, content and what follows.
fn element(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (
                bytes
                    .iter()
                    .fold(0, |length, byte| length << 8 | usize::from(*byte)),
                rest,
            )
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

fn expect(input: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = element(input)?;
    (tag == wanted).then_some((content, rest))
}

fn distinguished_name(mut name: &[u8]) -> Option<String> {
    let (mut common, mut organization) = (None, None);
    while !name.is_empty() {
        let (set, rest) = expect(name, SET)?;
        let (attribute, _) = expect(set, SEQUENCE)?;
        let (id, value) = expect(attribute, OBJECT_ID)?;
        let (_, value, _) = element(value)?;
        match id {
            COMMON_NAME => common = Some(shown(value)),
            ORGANIZATION => organization = Some(shown(value)),
            _ => {}
        }
        name = rest;
    }
    let parts = [
        common.map(|name| format!("CN={name}")),
        organization.map(|name| format!("O={name}")),
    ];
    Some(parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

fn alternative_names(extensions: &[u8]) -> Option<Vec<String>> {
    let (mut extensions, _) = expect(extensions, SEQUENCE)?;
    while !extensions.is_empty() {
        let (extension, rest) = expect(extensions, SEQUENCE)?;
        let (id, mut value) = expect(extension, OBJECT_ID)?;
        if id == SUBJECT_ALT_NAME {
            if let Some((tag, _, after)) = element(value)
                && tag != OCTET_STRING
            {
                value = after;
            }
            let (names, _) = expect(expect(value, OCTET_STRING)?.0, SEQUENCE)?;
            return general_names(names);
        }
        extensions = rest;
    }
    None
}

fn general_names(mut names: &[u8]) -> Option<Vec<String>> {
    let mut out = Vec::new();
    while !names.is_empty() && out.len() < NAMES_MAX {
        let (tag, content, rest) = element(names)?;
        match (tag, content.len()) {
            (DNS_NAME, _) => out.push(shown(content)),
            (IP_ADDRESS, 4) => {
                let bytes: [u8; 4] = content.try_into().ok()?;
                out.push(std::net::Ipv4Addr::from(bytes).to_string());
            }
            (IP_ADDRESS, 16) => {
                let bytes: [u8; 16] = content.try_into().ok()?;
                out.push(std::net::Ipv6Addr::from(bytes).to_string());
            }
            _ => {}
        }
        names = rest;
    }
    Some(out)
}

/// Seconds since 1970 of a time of RFC 5280 section 4.1.2.5.
fn time(tag: u8, text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, rest): (i64, &str) = match (tag, text.len()) {
        (UTC_TIME, 12) => {
            let short: i64 = text[..2].parse().ok()?;
            (
                if short < 50 {
                    2000 + short
                } else {
                    1900 + short
                },
                &text[2..],
            )
        }
        (GENERALIZED_TIME, 14) => (text[..4].parse().ok()?, &text[4..]),
        _ => return None,
    };
    let number = |at: usize| rest[at..at + 2].parse::<i64>().ok();
    let (month, day) = (number(0)?, number(2)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    Some(
        days_since_1970(year, month, day) * 86_400
            + number(4)? * 3600
            + number(6)? * 60
            + number(8)?,
    )
}

/// Days of the proleptic Gregorian calendar: years are counted from March, so that the leap day
/// comes last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let leap_days = year / 4 - year / 100 + year / 400;
    365 * year + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

/// A name as it may be shown: no control characters, not long.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(names: &[&str]) -> CertificateDer<'static> {
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        ca.distinguished_name
            .push(DnType::CommonName, "Zscaler\u{7} Root");
        ca.distinguished_name
            .push(DnType::OrganizationName, "Example GmbH");
        let issuer = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut leaf = CertificateParams::new(names).unwrap();
        leaf.not_before = date_time_ymd(2024, 2, 29);
        leaf.not_after = date_time_ymd(2051, 1, 1);
        leaf.signed_by(&KeyPair::generate().unwrap(), &issuer)
            .unwrap()
            .der()
            .clone()
    }

    #[test]
    fn fields_that_a_person_looks_at() {
        let der = certificate(&["r.openai.azure.com", "*.example", "10.0.0.1", "::1"]);
        let certificate = Certificate::parse(&der).unwrap();
        assert_eq!(
            certificate.names,
            ["r.openai.azure.com", "*.example", "10.0.0.1", "::1"]
        );
        assert!(
            certificate.issuer.contains("CN=Zscaler Root")
                && certificate.issuer.contains("O=Example GmbH")
        );
        // `date -ud 2024-02-29 +%s`, and the same for 2051-01-01.
        assert_eq!(
            (certificate.not_before, certificate.not_after),
            (1_709_164_800, 2_556_144_000)
        );
        assert_eq!(certificate.inspecting_proxy(), Some("Zscaler"));
        assert!(!certificate.is_issued_for_azure());
    }

    #[test]
    fn damaged_certificates_are_survived() {
        let der = certificate(&["a.example"]);
        for end in 0..der.len() {
            assert_eq!(Certificate::parse(&der[..end]), None, "{end}");
        }
        for at in 0..der.len() {
            for bits in [0xff, 0x80, 0x01] {
                let mut damaged = der.to_vec();
                damaged[at] ^= bits;
                let _ = Certificate::parse(&damaged);
            }
        }
    }

    #[test]
    fn times() {
        let check =
            |tag, text: &str, expected| assert_eq!(time(tag, text.as_bytes()), expected, "{text}");
        check(UTC_TIME, "700101000000Z", Some(0));
        check(UTC_TIME, "491231235959Z", Some(2_524_607_999));
        check(GENERALIZED_TIME, "20500101000000Z", Some(2_524_608_000));
        check(UTC_TIME, "20500101000000Z", None);
        check(GENERALIZED_TIME, "20501301000000Z", None);
        check(GENERALIZED_TIME, "2050010100000\u{e9}Z", None);
        check(UTC_TIME, "7001010000", None);
    }
}
