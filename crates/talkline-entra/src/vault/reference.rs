//! Names of secrets in Key Vault.

use std::fmt;

use azure_core::http::Url;

use crate::{Scope, SetupError};

/// Vaults of the public, the government and the China cloud, with what tokens are asked for
/// (<https://learn.microsoft.com/azure/key-vault/general/about-keys-secrets-certificates#dns-suffixes-for-object-identifiers>).
const CLOUDS: [(&str, &str); 3] = [
    ("vault.azure.net", "https://vault.azure.net/.default"),
    (
        "vault.usgovcloudapi.net",
        "https://vault.usgovcloudapi.net/.default",
    ),
    ("vault.azure.cn", "https://vault.azure.cn/.default"),
];

/// The beginning of a reference that App Service replaces by the secret.
const APP_SERVICE: &str = "@Microsoft.KeyVault(";

/// The name of a secret in a vault, with or without its version.
///
/// `Display` writes the `https` form. A reference is no secret.
///
/// ```
/// use talkline_entra::VaultReference;
///
/// let reference = VaultReference::parse("https://contoso.vault.azure.net/secrets/openai-key")?;
/// assert!(!reference.is_versioned());
///
/// let same = VaultReference::parse("@Microsoft.KeyVault(VaultName=contoso;SecretName=openai-key)")?;
/// assert_eq!(same, reference);
/// # Ok::<(), talkline_entra::SetupError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VaultReference {
    /// Of the form `^[0-9A-Za-z-]{3,24}$`, in lower case.
    vault: String,
    /// One of `CLOUDS`.
    domain: &'static str,
    /// Of the form `^[0-9A-Za-z-]{1,127}$`.
    name: String,
    /// Of the form `^[0-9a-f]{32}$`.
    version: Option<String>,
}

impl VaultReference {
    /// Reads one of the forms
    ///
    /// - `https://<vault>.vault.azure.net/secrets/<name>[/<version>]`, also with the domains
    ///   `vault.usgovcloudapi.net` and `vault.azure.cn`;
    /// - `@Microsoft.KeyVault(SecretUri=<the form above>)`;
    /// - `@Microsoft.KeyVault(VaultName=<vault>;SecretName=<name>[;SecretVersion=<version>])`, in
    ///   the public cloud.
    ///
    /// Sources: <https://learn.microsoft.com/rest/api/keyvault/secrets/get-secret/get-secret> and
    /// <https://learn.microsoft.com/azure/app-service/app-service-key-vault-references>.
    ///
    /// # Errors
    ///
    /// [`SetupError::VaultReference`] says what is wrong and quotes nothing: the text may be a key
    /// that was put in the wrong place.
    pub fn parse(text: &str) -> Result<Self, SetupError> {
        let Some(fields) = text.strip_prefix(APP_SERVICE) else {
            return Self::parse_url(text);
        };
        let fields = fields
            .strip_suffix(')')
            .ok_or(bad("it has no closing parenthesis"))?;
        Self::parse_fields(fields)
    }

    /// Whether a text is a reference that App Service was to replace by the secret: it leaves the
    /// text in place when it cannot.
    pub fn is_app_service_reference(text: &str) -> bool {
        text.trim_start().starts_with(APP_SERVICE)
    }

    fn parse_url(text: &str) -> Result<Self, SetupError> {
        let url = Url::parse(text).map_err(|_| bad("it is not a URL"))?;
        if url.scheme() != "https" {
            return Err(bad("it is not an https URL"));
        }
        if !url.username().is_empty()
            || url.password().is_some()
            || url.port().is_some()
            || url.query().is_some()
            || url.fragment().is_some()
        {
            return Err(bad("it has more than a host and a path"));
        }
        let (vault, domain) = url
            .host_str()
            .and_then(|host| host.split_once('.'))
            .ok_or(bad("its host is not a vault"))?;
        let domain = CLOUDS
            .iter()
            .map(|(known, _)| *known)
            .find(|known| *known == domain)
            .ok_or(bad(
                "its host is not under vault.azure.net, vault.usgovcloudapi.net or vault.azure.cn",
            ))?;
        // From the text, where dots and escapes have not been resolved yet.
        let path = text
            .get("https://".len()..)
            .and_then(|rest| rest.split_once('/'))
            .ok_or(bad("it names no secret"))?
            .1;
        match path.split('/').collect::<Vec<_>>()[..] {
            ["secrets", name] | ["secrets", name, ""] => Self::new(vault, domain, name, None),
            ["secrets", name, version] => Self::new(vault, domain, name, Some(version)),
            _ => Err(bad("its path is not /secrets/<name>[/<version>]")),
        }
    }

    fn parse_fields(fields: &str) -> Result<Self, SetupError> {
        let (mut uri, mut vault, mut name, mut version) = (None, None, None, None);
        for field in fields.split(';') {
            let (key, value) = field
                .split_once('=')
                .ok_or(bad("a part of it is not of the form Name=value"))?;
            let slot = match key.trim().to_ascii_lowercase().as_str() {
                "secreturi" => &mut uri,
                "vaultname" => &mut vault,
                "secretname" => &mut name,
                "secretversion" => &mut version,
                _ => return Err(bad("a part of it is not known")),
            };
            if slot.replace(value.trim()).is_some() {
                return Err(bad("a part of it is there twice"));
            }
        }
        match (uri, vault, name) {
            (Some(uri), None, None) if version.is_none() => Self::parse_url(uri),
            (None, Some(vault), Some(name)) => {
                let version = version.filter(|version| !version.is_empty());
                Self::new(vault, CLOUDS[0].0, name, version)
            }
            _ => Err(bad(
                "it needs either SecretUri, or VaultName and SecretName",
            )),
        }
    }

    fn new(
        vault: &str,
        domain: &'static str,
        name: &str,
        version: Option<&str>,
    ) -> Result<Self, SetupError> {
        let word = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !(3..=24).contains(&vault.len()) || !word(vault) {
            return Err(bad(
                "the vault's name is not 3 to 24 letters, digits and hyphens",
            ));
        }
        if !(1..=127).contains(&name.len()) || !word(name) {
            return Err(bad(
                "the secret's name is not 1 to 127 letters, digits and hyphens",
            ));
        }
        let hexadecimal = |text: &str| {
            text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        if !version.is_none_or(hexadecimal) {
            return Err(bad(
                "the secret's version is not 32 lower-case hexadecimal digits",
            ));
        }
        Ok(Self {
            vault: vault.to_ascii_lowercase(),
            domain,
            name: name.to_owned(),
            version: version.map(str::to_owned),
        })
    }

    /// Whether the reference names one version, whose value never changes. Without it the latest
    /// is read, and reading again, about every 10 minutes, finds a rotated secret.
    pub fn is_versioned(&self) -> bool {
        self.version.is_some()
    }

    /// What a token for this vault is asked for.
    pub fn scope(&self) -> Scope {
        let scope = CLOUDS
            .iter()
            .find(|(domain, _)| *domain == self.domain)
            .map_or(CLOUDS[0].1, |(_, scope)| *scope);
        Scope::known(scope)
    }

    /// The vault's host name, the only one that is asked.
    pub fn host(&self) -> String {
        format!("{}.{}", self.vault, self.domain)
    }

    /// The vault's name.
    pub fn vault(&self) -> &str {
        &self.vault
    }

    /// The secret's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn domain(&self) -> &'static str {
        self.domain
    }

    pub(super) fn path(&self) -> String {
        match &self.version {
            Some(version) => format!("/secrets/{}/{version}", self.name),
            None => format!("/secrets/{}", self.name),
        }
    }
}

impl fmt::Display for VaultReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}{}", self.host(), self.path())
    }
}

fn bad(why: &'static str) -> SetupError {
    SetupError::VaultReference(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn references_are_read() {
        fn check(text: &str, expected: &str, scope: &str) {
            let reference = VaultReference::parse(text).unwrap();
            assert_eq!(reference.to_string(), expected, "{text}");
            assert_eq!(reference.scope().as_str(), scope, "{text}");
            assert_eq!(reference.is_versioned(), text.contains(VERSION), "{text}");
        }
        let public = "https://vault.azure.net/.default";
        let plain = "https://contoso.vault.azure.net/secrets/Key-1";
        let versioned = &format!("{plain}/{VERSION}");
        check(plain, plain, public);
        check(&format!("{plain}/"), plain, public);
        check(versioned, versioned, public);
        check(
            "https://Contoso.Vault.Azure.NET/secrets/Key-1",
            plain,
            public,
        );
        check(
            "https://contoso.vault.azure.net:443/secrets/Key-1",
            plain,
            public,
        );
        let government = "https://contoso.vault.usgovcloudapi.net/secrets/k";
        check(
            government,
            government,
            "https://vault.usgovcloudapi.net/.default",
        );
        let china = "https://contoso.vault.azure.cn/secrets/k";
        check(china, china, "https://vault.azure.cn/.default");
        let field = |fields: &str| format!("@Microsoft.KeyVault({fields})");
        check(&field(&format!("SecretUri={plain}")), plain, public);
        check(&field(&format!("SecretUri={plain}/")), plain, public);
        check(&field(&format!("SecretUri={versioned}")), versioned, public);
        let named = "VaultName=contoso;SecretName=Key-1";
        check(&field(named), plain, public);
        check(
            &field("SecretName=Key-1; vaultname = contoso"),
            plain,
            public,
        );
        check(&field(&format!("{named};SecretVersion=")), plain, public);
        check(
            &field(&format!("{named};SecretVersion={VERSION}")),
            versioned,
            public,
        );
    }

    #[test]
    fn other_texts_are_refused_and_not_quoted() {
        fn check(text: &str, why: &str) {
            let error = VaultReference::parse(text).unwrap_err();
            assert_eq!(error, SetupError::VaultReference(error_text(&error)));
            assert!(error_text(&error).contains(why), "{text}: {error}");
        }
        fn error_text(error: &SetupError) -> &'static str {
            match error {
                SetupError::VaultReference(why) => why,
                other => panic!("{other}"),
            }
        }
        check("", "not a URL");
        check("sk-0123456789", "not a URL");
        check("http://contoso.vault.azure.net/secrets/k", "not an https");
        let more = "more than a host and a path";
        check("https://u@contoso.vault.azure.net/secrets/k", more);
        check("https://contoso.vault.azure.net:8443/secrets/k", more);
        check("https://contoso.vault.azure.net/secrets/k?x=1", more);
        check("https://contoso.vault.azure.net/secrets/k#x", more);
        let host = "host is not";
        check(
            "https://contoso.vault.azure.net.evil.example/secrets/k",
            host,
        );
        check("https://a.contoso.vault.azure.net/secrets/k", host);
        check("https://evilvault.azure.net/secrets/k", host);
        check("https://localhost/secrets/k", host);
        check("https://vault.azure.net/secrets/k", host);
        check("https://127.0.0.1/secrets/k", host);
        let vault = "vault's name";
        check("https://a.vault.azure.net/secrets/k", vault);
        check("https://a_b_c.vault.azure.net/secrets/k", vault);
        check(
            "https://abcdefghijklmnopqrstuvwxy.vault.azure.net/secrets/k",
            vault,
        );
        let path = "its path is not";
        check("https://contoso.vault.azure.net/", path);
        check("https://contoso.vault.azure.net/keys/k", path);
        check("https://contoso.vault.azure.net/secrets", path);
        check("https://contoso.vault.azure.net/secrets/k/v/x", path);
        check("https://contoso.vault.azure.net", "names no secret");
        let name = "secret's name";
        check("https://contoso.vault.azure.net/secrets/", name);
        check("https://contoso.vault.azure.net/secrets//", name);
        check("https://contoso.vault.azure.net/secrets/a_b", name);
        check("https://contoso.vault.azure.net/secrets/..", name);
        check("https://contoso.vault.azure.net/secrets/%2e%2e", name);
        check("https://contoso.vault.azure.net/secrets/a%2fb", name);
        let long = format!(
            "https://contoso.vault.azure.net/secrets/{}",
            "a".repeat(128)
        );
        check(&long, name);
        let version = "secret's version";
        check("https://contoso.vault.azure.net/secrets/k/v", version);
        let upper = VERSION.to_uppercase();
        check(
            &format!("https://contoso.vault.azure.net/secrets/k/{upper}"),
            version,
        );
        check("@Microsoft.KeyVault(SecretUri=x", "parenthesis");
        check("@Microsoft.KeyVault()", "Name=value");
        check("@Microsoft.KeyVault(SecretUri=x)", "not a URL");
        check("@Microsoft.KeyVault(VaultName=contoso)", "it needs either");
        check(
            "@Microsoft.KeyVault(VaultName=contoso;VaultName=b;SecretName=k)",
            "twice",
        );
        check("@Microsoft.KeyVault(Secret=k)", "not known");
        check(
            "@Microsoft.KeyVault(VaultName=contoso.evil;SecretName=k)",
            vault,
        );
        check(
            "@Microsoft.KeyVault(VaultName=contoso;SecretName=../k)",
            name,
        );
    }

    #[test]
    fn what_app_service_left_in_place_is_recognised() {
        let is = VaultReference::is_app_service_reference;
        assert!(is("@Microsoft.KeyVault(SecretUri=x)"));
        assert!(is(" @Microsoft.KeyVault("));
        assert!(!is("0123456789abcdef"));
    }
}
