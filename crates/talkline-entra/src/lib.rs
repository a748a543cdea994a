//! Decides how a Microsoft Entra ID token is obtained: azure_identity over our own HTTP transport, behind the TokenSource trait.
#![forbid(unsafe_code)]
