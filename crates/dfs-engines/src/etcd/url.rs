//! URLs of the engine on etcd.

use std::path::{Path, PathBuf};

use dfs_etcd::{Credentials, Identity, Settings, Tls};

/// Environment variable of the password when no file is given.
const PASSWORD_VARIABLE: &str = "DFS_ETCD_PASSWORD";
/// Maximum length of a prefix in bytes.
const PREFIX_LEN_MAX: usize = 64;

/// A parsed URL: `etcd://host:port,host:port/prefix`, with `etcds` for TLS, and
/// `?user=…&password-file=…&ca=…&cert=…&key=…` as needed. Nothing in it is decoded.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) members: Vec<String>,
    pub(crate) prefix: String,
    is_tls: bool,
    user: Option<String>,
    password_file: Option<PathBuf>,
    authority: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Url {
    /// Returns whether a URL is one of etcd.
    pub(crate) fn matches(url: &str) -> bool {
        url.starts_with("etcd:") || url.starts_with("etcds:")
    }

    /// Parses a URL, or returns what is wrong with it.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let (rest, is_tls) = match (url.strip_prefix("etcd://"), url.strip_prefix("etcds://")) {
            (Some(rest), _) => (rest, false),
            (_, Some(rest)) => (rest, true),
            _ => return Err("it does not start with etcd:// or etcds://".to_owned()),
        };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (members, prefix) = place.split_once('/').unwrap_or((place, ""));
        let members: Vec<String> = members.split(',').map(str::to_owned).collect();
        if let Some(wrong) = members.iter().find(|member| !is_member(member)) {
            return Err(format!("{wrong:?} is not host:port"));
        }
        let is_letter = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if prefix.is_empty() || prefix.len() > PREFIX_LEN_MAX || !prefix.chars().all(is_letter) {
            return Err(format!(
                "the prefix {prefix:?} is not one word of 1 to {PREFIX_LEN_MAX} letters, digits, \
                 '.', '_' and '-'"
            ));
        }
        let mut parsed = Self { members, prefix: prefix.to_owned(), is_tls, ..Self::default() };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            parsed.set(pair)?;
        }
        parsed.check()?;
        Ok(parsed)
    }

    fn set(&mut self, pair: &str) -> Result<(), String> {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if value.is_empty() {
            return Err(format!("{name:?} has no value"));
        }
        let path = Some(PathBuf::from(value));
        match name {
            "user" => self.user = Some(value.to_owned()),
            "password-file" => self.password_file = path,
            "ca" => self.authority = path,
            "cert" => self.certificate = path,
            "key" => self.key = path,
            "password" => {
                return Err(format!(
                    "a password does not belong in a URL: give password-file, or set \
                     {PASSWORD_VARIABLE}"
                ));
            }
            _ => {
                return Err(format!(
                    "{name:?} is not one of user, password-file, ca, cert and key"
                ));
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        let has_tls_files =
            self.authority.is_some() || self.certificate.is_some() || self.key.is_some();
        if has_tls_files && !self.is_tls {
            return Err("ca, cert and key need etcds://".to_owned());
        }
        if self.is_tls && self.authority.is_none() {
            return Err("etcds:// needs ca, the file of the authority to trust".to_owned());
        }
        if self.certificate.is_some() != self.key.is_some() {
            return Err("cert and key must be given together".to_owned());
        }
        if self.password_file.is_some() && self.user.is_none() {
            return Err("password-file needs user".to_owned());
        }
        Ok(())
    }

    /// Reads the files it names, and the password. Blocks.
    pub(crate) fn settings(&self) -> Result<Settings, String> {
        let identity = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                Some(Identity { certificate: load(certificate)?, key: load(key)? })
            }
            _ => None,
        };
        let authority = self.authority.as_deref().map(load).transpose()?;
        let tls = authority.map(|authority| Tls { authority, identity });
        let credentials = match &self.user {
            None => None,
            Some(user) => Some(Credentials { user: user.clone(), password: self.password()? }),
        };
        Ok(Settings { members: self.members.clone(), tls, credentials })
    }

    fn password(&self) -> Result<String, String> {
        let Some(file) = &self.password_file else {
            return std::env::var(PASSWORD_VARIABLE)
                .map_err(|_| format!("user needs password-file, or {PASSWORD_VARIABLE}"));
        };
        let text = String::from_utf8(load(file)?)
            .map_err(|_| format!("{} is not text", file.display()))?;
        Ok(text.trim_end_matches(['\r', '\n']).to_owned())
    }
}

fn is_member(text: &str) -> bool {
    let is_host = |host: &str| !host.is_empty() && !host.contains(['@', '/', ' ']);
    text.rsplit_once(':').is_some_and(|(host, port)| is_host(host) && port.parse::<u16>().is_ok())
}

fn load(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_parsed() {
        let url = Url::parse("etcd://a:1,b.c:2,[::1]:3/dfs").unwrap();
        assert_eq!(url.members, ["a:1", "b.c:2", "[::1]:3"]);
        assert_eq!((&*url.prefix, url.is_tls), ("dfs", false));
        let url =
            Url::parse("etcds://a:1/dfs?ca=/ca.pem&cert=/c.pem&key=/k.pem&user=u&password-file=/p")
                .unwrap();
        assert!(url.is_tls && url.user.as_deref() == Some("u"));
        assert_eq!(url.key.as_deref(), Some(Path::new("/k.pem")));
    }

    #[test]
    fn invalid_urls_are_explained() {
        for (url, says) in [
            ("etcd:a", "does not start with"),
            ("etcd://", "is not host:port"),
            ("etcd://a:1,/p", "is not host:port"),
            ("etcd://a/p", "\"a\" is not host:port"),
            ("etcd://a:70000/p", "is not host:port"),
            ("etcd://u:secret@a:1/p", "is not host:port"),
            ("etcd://a:1", "prefix"),
            ("etcd://a:1/", "prefix"),
            ("etcd://a:1/p/q", "prefix"),
            ("etcd://a:1/p?what=1", "\"what\""),
            ("etcd://a:1/p?user", "no value"),
            ("etcd://a:1/p?user=u&password=p", "password-file"),
            ("etcd://a:1/p?password-file=f", "user"),
            ("etcd://a:1/p?ca=f", "etcds://"),
            ("etcds://a:1/p", "needs ca"),
            ("etcds://a:1/p?ca=f&cert=f", "together"),
        ] {
            let error = Url::parse(url).unwrap_err();
            assert!(error.contains(says), "{url}: {error}");
        }
        let missing = Url::parse("etcds://a:1/p?ca=/not/there").unwrap().settings().unwrap_err();
        assert!(missing.contains("/not/there"), "{missing}");
    }
}
