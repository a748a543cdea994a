//! Tokens of the person who is signed in to a developer tool.

mod executor;

use std::time::Duration;

use azure_core::time::{OffsetDateTime, parse_rfc3339};
use serde_json::{Map, Value};
use talkline_auth::{FetchedToken, Secret, TokenError, TokenFuture, TokenSource};

pub(crate) use executor::find;
use executor::{Executor, Outcome, Trouble};

use crate::{
    Environment, Scope, SetupError, answer::Complaint, diagnosis::Finding, redact::Redactor,
};

/// Tokens of whoever signed in with `az login`. For development only.
///
/// Every fetch runs `az account get-access-token` once, for at most 10 seconds, without a shell; az
/// inherits the environment of this process. The program is looked for in the absolute directories
/// of `PATH`.
#[derive(Debug)]
pub struct AzureCli(Tool);

impl AzureCli {
    /// Takes `PATH` from `environment`; runs nothing. Without a `tenant_id` the token is of the
    /// tenant of az's default subscription.
    ///
    /// # Errors
    ///
    /// [`SetupError::Id`] for a tenant that is none.
    pub fn new(
        tenant_id: Option<&str>,
        scope: Scope,
        environment: &Environment,
    ) -> Result<Self, SetupError> {
        Tool::new(&AZ, tenant_id, &scope, environment).map(Self)
    }

    /// Replaces the 10 seconds that the program may take.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self(self.0.with_timeout(timeout))
    }
}

/// Tokens of whoever signed in with `azd auth login`. For development only.
///
/// As [`AzureCli`], with `azd auth token`.
#[derive(Debug)]
pub struct AzureDeveloperCli(Tool);

impl AzureDeveloperCli {
    /// Takes `PATH` from `environment`; runs nothing. Without a `tenant_id` the token is of the
    /// tenant that azd has signed in to.
    ///
    /// # Errors
    ///
    /// [`SetupError::Id`] for a tenant that is none.
    pub fn new(
        tenant_id: Option<&str>,
        scope: Scope,
        environment: &Environment,
    ) -> Result<Self, SetupError> {
        Tool::new(&AZD, tenant_id, &scope, environment).map(Self)
    }

    /// Replaces the 10 seconds that the program may take.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self(self.0.with_timeout(timeout))
    }
}

impl TokenSource for AzureCli {
    fn name(&self) -> &'static str {
        self.0.dialect.source_name
    }

    fn fetch(&self) -> TokenFuture<'_> {
        Box::pin(self.0.fetch())
    }
}

impl TokenSource for AzureDeveloperCli {
    fn name(&self) -> &'static str {
        self.0.dialect.source_name
    }

    fn fetch(&self) -> TokenFuture<'_> {
        Box::pin(self.0.fetch())
    }
}

/// Finds token and expiry in what a tool printed.
type Read = fn(&Map<String, Value>) -> Option<(&str, OffsetDateTime)>;

/// What tells the tools apart.
#[derive(Debug)]
struct Dialect {
    source_name: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
    tenant_argument: &'static str,
    install: &'static str,
    sign_in: &'static str,
    read: Read,
}

/// <https://learn.microsoft.com/cli/azure/account#az-account-get-access-token>.
const AZ: Dialect = Dialect {
    source_name: "azure-cli",
    program: "az",
    arguments: &["account", "get-access-token", "--output", "json"],
    tenant_argument: "--tenant",
    install: "install the Azure CLI (https://aka.ms/azure-cli), or put az on PATH",
    sign_in: "az login",
    read: |answer| {
        // `expiresOn` beside it is in local time, which cannot be read safely.
        let expires = answer.get("expires_on")?.as_i64()?;
        let expires = OffsetDateTime::from_unix_timestamp(expires).ok()?;
        Some((answer.get("accessToken")?.as_str()?, expires))
    },
};

/// <https://learn.microsoft.com/azure/developer/azure-developer-cli/reference#azd-auth-token>.
const AZD: Dialect = Dialect {
    source_name: "azd",
    program: "azd",
    arguments: &["auth", "token", "--output", "json", "--no-prompt"],
    tenant_argument: "--tenant-id",
    install: "install the Azure Developer CLI (https://aka.ms/azd), or put azd on PATH",
    sign_in: "azd auth login",
    read: |answer| {
        let expires = parse_rfc3339(answer.get("expiresOn")?.as_str()?).ok()?;
        Some((answer.get("token")?.as_str()?, expires))
    },
};

#[derive(Debug)]
struct Tool {
    dialect: &'static Dialect,
    arguments: Vec<String>,
    tenant_id: Option<String>,
    executor: Executor,
}

impl Tool {
    fn new(
        dialect: &'static Dialect,
        tenant_id: Option<&str>,
        scope: &Scope,
        environment: &Environment,
    ) -> Result<Self, SetupError> {
        let mut arguments: Vec<_> = dialect.arguments.iter().map(|&text| text.into()).collect();
        arguments.extend(["--scope".into(), scope.as_str().into()]);
        if let Some(tenant_id) = tenant_id {
            crate::authority::check_id("tenant id", tenant_id)?;
            arguments.extend([dialect.tenant_argument.into(), tenant_id.into()]);
        }
        Ok(Self {
            dialect,
            arguments,
            tenant_id: tenant_id.map(str::to_owned),
            executor: Executor::new(environment.path.clone()),
        })
    }

    fn with_timeout(mut self, timeout: Duration) -> Self {
        self.executor.timeout = timeout;
        self
    }

    async fn fetch(&self) -> Result<FetchedToken, TokenError> {
        let program = self.dialect.program;
        let result = match self.executor.run(program, &self.arguments).await {
            Ok(outcome) if outcome.success => self.token(&outcome.stdout),
            Ok(outcome) => Err(self.failed(&outcome)),
            Err(trouble) => Err(self.trouble(trouble)),
        };
        result.map_err(|finding| finding.into_token_error(self.dialect.source_name))
    }

    /// What the program printed is never quoted: it may be a token.
    fn token(&self, stdout: &[u8]) -> Result<FetchedToken, Finding> {
        let Dialect { program, .. } = self.dialect;
        let garbage = |why: &str| {
            let length = stdout.len();
            let what = format!("{program} printed {length} bytes that are no token: {why}");
            Finding::permanent("cli_garbage", what).hint(format!(
                "run {program} {} by hand; is it an old version?",
                self.arguments.join(" ")
            ))
        };
        let Ok(Value::Object(answer)) = serde_json::from_slice(stdout) else {
            return Err(garbage("it is not a JSON object"));
        };
        let Some((token, expires)) = (self.dialect.read)(&answer) else {
            return Err(garbage("token or expiry is missing"));
        };
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(garbage("the token cannot be put in a header"));
        }
        match Duration::try_from(expires - OffsetDateTime::now_utc()) {
            Ok(time_to_live) if !time_to_live.is_zero() => Ok(FetchedToken {
                secret: Secret::new(token),
                time_to_live,
                refresh_in: None,
            }),
            _ => Err(Finding::transient(
                "identity_token_expired",
                format!("{program} gave a token that has already expired"),
            )
            .hint("is the clock right?")),
        }
    }

    fn failed(&self, outcome: &Outcome) -> Finding {
        let Dialect {
            program, sign_in, ..
        } = self.dialect;
        let complaint = String::from_utf8_lossy(&outcome.stderr);
        let mut what = format!("{program} failed ({})", outcome.status);
        let said = Redactor::default().quote(&complaint);
        if !said.is_empty() {
            what.push_str(&format!(": {said}"));
        }
        let sign_in = match &self.tenant_id {
            Some(tenant) => format!("{sign_in} {} {tenant}", self.dialect.tenant_argument),
            None => (*sign_in).to_owned(),
        };
        if complaint.contains(self.dialect.sign_in) || signed_out(&complaint) {
            return Finding::permanent("cli_logged_out", what).hint(format!("run {sign_in}"));
        }
        // Both tools wait for each other over a lock file, and both need the network.
        Finding::transient("cli_failed", what).hint(format!(
            "run {program} {} by hand",
            self.arguments.join(" ")
        ))
    }

    fn trouble(&self, trouble: Trouble) -> Finding {
        let Dialect {
            program, install, ..
        } = self.dialect;
        match trouble {
            Trouble::Missing => {
                Finding::permanent("cli_missing", format!("{program} is not on PATH"))
                    .hint(*install)
            }
            Trouble::Start(error) => Finding::permanent(
                "cli_failed",
                format!("{program} cannot be started: {error}"),
            ),
            Trouble::Hung(limit) => Finding::transient(
                "cli_hung",
                format!("{program} gave no answer within {limit:?} and was ended"),
            )
            .hint(format!(
                "run {program} {} by hand; does it wait for the network or for another {program}?",
                self.arguments.join(" ")
            )),
            Trouble::TooMuch(limit) => Finding::permanent(
                "cli_garbage",
                format!("{program} printed more than {limit} bytes and was ended"),
            )
            .hint(format!(
                "run {program} {} by hand",
                self.arguments.join(" ")
            )),
            Trouble::Read(error) => {
                Finding::transient("cli_failed", format!("{program} cannot be read: {error}"))
            }
        }
    }
}

/// Entra wants the person: no session, or one that has ended, was revoked or needs a second factor.
fn signed_out(complaint: &str) -> bool {
    complaint.contains("not logged in")
        || matches!(
            Complaint::read(complaint.as_bytes()).aadsts,
            Some(
                50_057
                    | 50_076
                    | 50_078
                    | 50_079
                    | 50_173
                    | 65_002
                    | 70_008
                    | 70_043
                    | 700_082
                    | 700_084
            )
        )
}
