//! Configuration: flags, then `mobula.toml`, then Hadoop's `core-site.xml` and `hdfs-site.xml`, then
//! defaults. Every setting is known by Hadoop's key where HDFS has one that means the same; the
//! table in [`keys`] says which, and what it is called in `mobula.toml`.
//!
//! Invariant: a value that is used was checked for its kind, and an error names where it stood.

mod build;
mod hadoop_xml;
pub mod keys;
mod mobula_toml;
pub mod units;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

pub use build::{
    DatanodeFlags, NamenodeFlags, client_options, datanode_config, datanode_reserved,
    datanode_times_and_limits, favored_nodes, namenode_config, namenode_http, namenode_names, own_host_name,
    user_name,
};

/// A value and where it was written, as `hdfs-site.xml` or `mobula.toml:12`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The text.
    pub value: String,
    /// Where it stood, for messages.
    pub origin: String,
    /// Hadoop's `final`: later files may not change it.
    pub last_word: bool,
}

/// All settings, by Hadoop's key.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    by_key: BTreeMap<String, Setting>,
}

impl Settings {
    /// Reads the folder's `core-site.xml` and `hdfs-site.xml` where they exist, then `mobula.toml`. The folder must exist.
    /// `toml` names another file than `mobula.toml` in the working directory; it must then exist.
    ///
    /// # Errors
    /// A file that cannot be read or parsed, an unknown key of ours: with file, line and what to do.
    pub fn load(hadoop_folder: Option<&Path>, toml: Option<&Path>) -> Result<Settings> {
        let mut settings = Settings::default();
        if let Some(folder) = hadoop_folder {
            std::fs::read_dir(folder)
                .with_context(|| format!("cannot read the folder of configuration {}", folder.display()))?;
            for name in ["core-site.xml", "hdfs-site.xml"] {
                let path = folder.join(name);
                if path.try_exists().with_context(|| format!("cannot read {}", path.display()))? {
                    settings.add_hadoop_file(&path)?;
                }
            }
        }
        let given = toml.map(Path::to_path_buf);
        let path = given.clone().unwrap_or_else(|| PathBuf::from("mobula.toml"));
        if given.is_some() || path.exists() {
            settings.add_mobula_file(&path)?;
        }
        Ok(settings)
    }

    /// Adds what a Hadoop configuration file says.
    ///
    /// # Errors
    /// The file cannot be read or parsed.
    pub fn add_hadoop_file(&mut self, path: &Path) -> Result<()> {
        for property in hadoop_xml::read(path)? {
            let origin = path.display().to_string();
            self.put(keys::of_today(&property.name), property.value, origin, property.last_word);
        }
        Ok(())
    }

    /// Adds what a `mobula.toml` says; its settings go before Hadoop's files.
    ///
    /// # Errors
    /// The file cannot be read or parsed, or holds a key that we do not know.
    pub fn add_mobula_file(&mut self, path: &Path) -> Result<()> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let found = mobula_toml::parse(&text, &path.display().to_string())?;
        if found.iter().any(|(key, ..)| key == "dfs.namenode.rpc-address") {
            self.remove("dfs.namenode.rpc-bind-host");
        }
        for (key, value, line) in found {
            self.by_key.insert(
                key,
                Setting { value, origin: format!("{}:{line}", path.display()), last_word: false },
            );
        }
        Ok(())
    }

    /// Sets a key from a flag: the strongest.
    pub fn set(&mut self, key: &str, value: impl Into<String>) {
        let origin = "the command line".to_string();
        self.by_key.insert(key.into(), Setting { value: value.into(), origin, last_word: false });
    }

    /// Forgets a key.
    pub fn remove(&mut self, key: &str) {
        self.by_key.remove(key);
    }

    /// The value of a key, with `${...}` filled in from other settings and the environment.
    pub fn get(&self, key: &str) -> Option<String> {
        self.by_key.get(key).map(|setting| self.expand(&setting.value, 0))
    }

    /// All settings, expanded, for those who look up keys of their own.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        self.by_key.keys().filter_map(|key| Some((key.clone(), self.get(key)?))).collect()
    }

    /// A number of bytes, as `134217728` or `128m`.
    ///
    /// # Errors
    /// Text that is none, with where it stood.
    pub fn size(&self, key: &str) -> Result<Option<u64>> {
        self.parsed(key, "a size such as 134217728 or 128m", units::parse_size)
    }

    /// A time in milliseconds; a number without a unit is in `unit_ms`.
    ///
    /// # Errors
    /// Text that is none, with where it stood.
    pub fn millis(&self, key: &str, unit_ms: u64) -> Result<Option<u64>> {
        self.parsed(key, "a time such as 3, 30s or 5m", |text| units::parse_millis(text, unit_ms))
    }

    /// A whole number.
    ///
    /// # Errors
    /// Text that is none, with where it stood.
    pub fn number<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>> {
        self.parsed(key, "a whole number in range", |text| text.trim().parse().ok())
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// Text that is neither, with where it stood.
    pub fn truth(&self, key: &str) -> Result<Option<bool>> {
        self.parsed(key, "true or false", |text| match text.trim().to_lowercase().as_str() {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        })
    }

    /// Keys that begin and end so, with what is between, and their values.
    pub fn between<'s>(
        &'s self,
        begin: &'s str,
        end: &'s str,
    ) -> impl Iterator<Item = (&'s str, String)> + use<'s> {
        self.by_key.keys().filter_map(move |key| {
            let name = key.strip_prefix(begin)?.strip_suffix(end)?;
            Some((name, self.get(key)?))
        })
    }

    /// The NameNodes' addresses as `host:port`, from `fs.defaultFS`.
    ///
    /// # Errors
    /// Another scheme than `hdfs`, with where it stood.
    pub fn namenodes(&self) -> Result<Vec<String>> {
        let uri = self.default_fs();
        self.namenodes_of(&uri).ok_or_else(|| {
            anyhow!("fs.defaultFS is {uri} ({}): it must be hdfs://HOST:PORT", self.origin("fs.defaultFS"))
        })
    }

    /// The file system of paths without a scheme, as a URI.
    pub fn default_fs(&self) -> String {
        self.get("fs.defaultFS").map_or_else(|| keys::DEFAULT_FS.into(), |uri| full_uri(&uri))
    }

    /// The NameNodes' addresses as `host:port` behind the URI of a cluster, which may be a logical name;
    /// `None` for another scheme than `hdfs`.
    pub fn namenodes_of(&self, uri: &str) -> Option<Vec<String>> {
        let authority = uri.strip_prefix("hdfs://")?.split('/').next()?;
        Some(self.named_service(authority).unwrap_or_else(|| vec![with_port(authority)]))
    }

    /// The addresses behind a logical name (`dfs.nameservices` and `dfs.ha.namenodes.NAME`).
    fn named_service(&self, name: &str) -> Option<Vec<String>> {
        let ids = self.get(&format!("dfs.ha.namenodes.{name}"))?;
        let address = |id: &str| self.get(&format!("dfs.namenode.rpc-address.{name}.{id}"));
        let addresses: Vec<String> = ids.split(',').filter_map(|id| address(id.trim())).collect();
        (!addresses.is_empty()).then_some(addresses)
    }

    fn origin(&self, key: &str) -> &str {
        self.by_key.get(key).map_or("default", |setting| setting.origin.as_str())
    }

    fn put(&mut self, key: &str, value: String, origin: String, last_word: bool) {
        if self.by_key.get(key).is_some_and(|setting| setting.last_word) {
            return;
        }
        self.by_key.insert(key.into(), Setting { value, origin, last_word });
    }

    fn parsed<T>(&self, key: &str, what: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>> {
        let Some(text) = self.get(key) else { return Ok(None) };
        let value = parse(&text);
        value.map(Some).ok_or_else(|| anyhow!("{}: {key} is '{text}', but must be {what}", self.origin(key)))
    }

    /// Fills in `${key}`, `${env.NAME}` and what Java knows; what is unknown stays as it is written.
    fn expand(&self, text: &str, depth: usize) -> String {
        let Some(start) = text.find("${").filter(|_| depth < EXPAND_DEPTH_MAX) else {
            return text.into();
        };
        let Some(end) = text[start..].find('}').map(|at| start + at) else { return text.into() };
        let name = &text[start + 2..end];
        let value = match name.strip_prefix("env.") {
            Some(variable) => of_environment(variable),
            None => self.by_key.get(name).map(|setting| setting.value.clone()).or_else(|| of_java(name)),
        };
        let rest = self.expand(&text[end + 1..], depth);
        match value {
            Some(value) => format!("{}{}{rest}", &text[..start], self.expand(&value, depth + 1)),
            None => format!("{}{rest}", &text[..=end]),
        }
    }
}

/// The URI of a file system that may be written as in Hadoop's youth (`FileSystem.fixName`): `host:port`, or `local`.
pub fn full_uri(name: &str) -> String {
    match name.trim() {
        "local" => "file:///".into(),
        name if !name.contains('/') => format!("hdfs://{name}"),
        uri => uri.into(),
    }
}

/// `NAME`, `NAME:-what it is if it is unset or empty` or `NAME-what it is if it is unset`.
fn of_environment(text: &str) -> Option<String> {
    let (name, default) = match text.split_once('-') {
        Some((name, default)) => (name, Some(default.to_owned())),
        None => (text, None),
    };
    let (name, or_empty) = name.strip_suffix(':').map_or((name, false), |name| (name, true));
    std::env::var(name).ok().filter(|value| !(or_empty && value.is_empty())).or(default)
}

/// Java's own variables, and the one key that others' defaults are made of.
fn of_java(name: &str) -> Option<String> {
    Some(match name {
        "user.name" => user_name(),
        "user.home" => std::env::var("HOME").ok()?,
        "java.io.tmpdir" => std::env::temp_dir().display().to_string(),
        "hadoop.tmp.dir" => format!("/tmp/hadoop-{}", user_name()),
        _ => return None,
    })
}

/// Hadoop follows `${...}` this deep (`Configuration.MAX_SUBST`).
const EXPAND_DEPTH_MAX: usize = 20;

/// HDFS's default port of a NameNode's RPC server.
const NAMENODE_PORT: u16 = 8020;

fn with_port(authority: &str) -> String {
    if authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        authority.into()
    } else {
        format!("{authority}:{NAMENODE_PORT}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn hadoop_files_with_variables_final_and_include() {
        let folder = folder(&[
            (
                "core-site.xml",
                r#"<?xml version="1.0"?><configuration xmlns:xi="http://www.w3.org/2001/XInclude">
                <property><name>base</name><value>/data</value></property>
                <property><name>fs.defaultFS</name><value>hdfs://nn1:9000</value><final>true</final></property>
                <xi:include href="more.xml"/></configuration>"#,
            ),
            (
                "more.xml",
                "<configuration><property><name>dfs.namenode.name.dir</name><value>${base}/nn</value></property></configuration>",
            ),
            (
                "hdfs-site.xml",
                "<configuration><property><name>fs.defaultFS</name><value>hdfs://other</value></property>
                 <property><name>dfs.blocksize</name><value>64m</value></property></configuration>",
            ),
        ]);
        let settings = Settings::load(Some(folder.path()), None).unwrap();
        assert_eq!(settings.namenodes().unwrap(), ["nn1:9000"]);
        assert_eq!(settings.get("dfs.namenode.name.dir").unwrap(), "/data/nn");
        assert_eq!(settings.size("dfs.blocksize").unwrap(), Some(64 << 20));
    }

    #[test]
    fn our_file_goes_before_hadoops_and_flags_before_both() {
        let folder = folder(&[
            (
                "hdfs-site.xml",
                "<configuration><property><name>dfs.replication</name><value>2</value></property></configuration>",
            ),
            ("mobula.toml", "[client]\nreplication = 1\n"),
        ]);
        let toml = folder.path().join("mobula.toml");
        let mut settings = Settings::load(Some(folder.path()), Some(&toml)).unwrap();
        assert_eq!(settings.number::<u16>("dfs.replication").unwrap(), Some(1));
        settings.set("dfs.replication", "3");
        assert_eq!(settings.number::<u16>("dfs.replication").unwrap(), Some(3));
    }

    fn property(name: &str, value: &str) -> String {
        format!("<property><name>{name}</name><value>{value}</value></property>")
    }

    fn hdfs_site(properties: &[(&str, &str)]) -> tempfile::TempDir {
        let all: String = properties.iter().map(|(name, value)| property(name, value)).collect();
        folder(&[("hdfs-site.xml", &format!("<configuration>{all}</configuration>"))])
    }

    #[test]
    fn an_address_that_was_given_is_the_one_that_is_bound() {
        let bind = "dfs.namenode.rpc-bind-host";
        let site = hdfs_site(&[(bind, "0.0.0.0"), ("dfs.namenode.name.dir", "/d")]);
        let listen = |settings: &Settings| namenode_config(settings).unwrap().listen.to_string();
        let mut settings = Settings::load(Some(site.path()), None).unwrap();
        settings.set("dfs.namenode.rpc-address", "127.0.0.1:7");
        assert_eq!(listen(&settings), "0.0.0.0:7");
        let flags = NamenodeFlags { listen: Some("127.0.0.1:8".into()), ..NamenodeFlags::default() };
        flags.apply(&mut settings);
        assert_eq!(listen(&settings), "127.0.0.1:8");
        let ours = folder(&[("mobula.toml", "[namenode]\nlisten = \"127.0.0.1:9\"\n")]);
        let toml = ours.path().join("mobula.toml");
        assert_eq!(listen(&Settings::load(Some(site.path()), Some(&toml)).unwrap()), "127.0.0.1:9");
    }

    #[test]
    fn http_is_served_where_it_is_configured_and_nowhere_else() {
        let mut settings = Settings::default();
        assert_eq!(namenode_http(&settings).unwrap(), None);
        settings.set("dfs.namenode.http-address", "127.0.0.1:9870");
        assert_eq!(namenode_http(&settings).unwrap(), Some("127.0.0.1:9870".parse().unwrap()));
        settings.set("dfs.namenode.http-bind-host", "0.0.0.0");
        assert_eq!(namenode_http(&settings).unwrap(), Some("0.0.0.0:9870".parse().unwrap()));
        settings.set("dfs.namenode.http-address", "9870");
        assert!(namenode_http(&settings).unwrap_err().to_string().contains("'9870' is no HOST:PORT"));
    }

    #[test]
    fn the_namenode_is_called_what_the_files_call_it() {
        let mut settings = Settings::default();
        settings.set("fs.defaultFS", "hdfs://nn.example.org");
        settings.set("dfs.namenode.http-address", "web.example.org:9870");
        settings.set("dfs.namenode.rpc-address", ":9000");
        assert_eq!(namenode_names(&settings), ["web.example.org", "nn.example.org"]);
    }

    #[test]
    fn what_is_not_there_or_not_whole_is_an_error() {
        let here = folder(&[("core-site.xml", "<configuration><property><name>a</name><value>b</value>")]);
        let load = |folder: &Path| format!("{:#}", Settings::load(Some(folder), None).unwrap_err());
        let missing = here.path().join("none");
        assert!(load(&missing).contains(missing.to_str().unwrap()), "{}", load(&missing));
        let text = load(here.path());
        assert!(text.contains("core-site.xml ends in the middle"), "{text}");
    }

    #[test]
    fn old_names_and_properties_without_a_value() {
        let site = folder(&[(
            "hdfs-site.xml",
            &format!(
                "<configuration>{}{}<property><name>dfs.replication</name></property></configuration>",
                property("fs.default.name", "hdfs://old:1"),
                property("dfs.permissions", "FALSE"),
            ),
        )]);
        let settings = Settings::load(Some(site.path()), None).unwrap();
        assert_eq!(settings.namenodes().unwrap(), ["old:1"]);
        assert_eq!(settings.truth("dfs.permissions.enabled").unwrap(), Some(false));
        assert_eq!(settings.number::<u16>("dfs.replication").unwrap(), None);
    }

    #[test]
    fn properties_as_attributes() {
        let site = folder(&[(
            "hdfs-site.xml",
            r#"<configuration>
            <property name="dfs.replication" value="2" final="true"/>
            <property name="dfs.replication" value="1"></property>
            <property name="dfs.blocksize" value="1m"><value>2 &lt;3 &amp; 4</value></property>
            <property name="dfs.ls.limit" value="7"><value></value><final/></property>
            <property><name>dfs.max.objects</name><value/></property>
            <property name="a" value=""/>
            </configuration>"#,
        )]);
        let settings = Settings::load(Some(site.path()), None).unwrap();
        assert_eq!(settings.number::<u16>("dfs.replication").unwrap(), Some(2));
        assert_eq!(settings.get("dfs.blocksize").unwrap(), "2 <3 & 4", "an element goes before an attribute");
        assert_eq!(settings.get("dfs.ls.limit").unwrap(), "7", "an empty element says nothing");
        assert_eq!(settings.get("dfs.namenode.max.objects"), None);
        assert_eq!(settings.get("a").unwrap(), "");
    }

    #[test]
    fn a_fallback_counts_if_what_is_included_is_not_there() {
        let site = |included: &str, fallback: &str| {
            let text = format!(
                r#"<configuration xmlns:xi="http://www.w3.org/2001/XInclude">
                <xi:include href="{included}">{fallback}</xi:include>{}</configuration>"#,
                property("after", "1"),
            );
            let more = format!("<configuration>{}</configuration>", property("who", "included"));
            let other = format!("<configuration>{}</configuration>", property("who", "hdfs"));
            folder(&[("hdfs-site.xml", &text), ("more.xml", &more), ("hdfs.xml", &other)])
        };
        let fallback = format!("<xi:fallback>{}</xi:fallback>", property("who", "fallback"));
        let nested = r#"<xi:fallback><xi:include href="more.xml"/></xi:fallback>"#;
        for (included, fallback, who) in [
            ("more.xml", "", Some("included")),
            ("more.xml", &*fallback, Some("included")),
            ("none.xml", &*fallback, Some("fallback")),
            ("none.xml", "<xi:fallback/>", None),
            ("none.xml", nested, Some("included")),
            ("hdfs.xml", nested, Some("hdfs")),
        ] {
            let settings = Settings::load(Some(site(included, fallback).path()), None).unwrap();
            assert_eq!(settings.get("who").as_deref(), who, "{included} {fallback}");
            assert_eq!(settings.get("after").as_deref(), Some("1"), "{included} {fallback}");
        }
        let error = Settings::load(Some(site("none.xml", "").path()), None).unwrap_err().to_string();
        assert!(error.contains("none.xml, which is not there"), "{error}");
    }

    #[test]
    fn variables_have_defaults_and_folders_none_left() {
        let mut settings = Settings::default();
        for (text, expected) in [
            ("${env.MOBULA_NOT_SET:-/a}/x", "/a/x".to_string()),
            ("${env.MOBULA_NOT_SET-/b-c}", "/b-c".to_string()),
            ("${hadoop.tmp.dir}/dfs/name", format!("/tmp/hadoop-{}/dfs/name", user_name())),
            ("${nope}/x", "${nope}/x".to_string()),
        ] {
            settings.set("dfs.namenode.name.dir", text);
            assert_eq!(settings.get("dfs.namenode.name.dir").unwrap(), expected);
        }
        let error = namenode_config(&settings).unwrap_err().to_string();
        assert!(error.contains("dfs.namenode.name.dir is '${nope}/x'"), "{error}");
    }

    #[test]
    fn a_datanode_finds_the_namenode_where_that_serves() {
        let mut settings = Settings::default();
        settings.set("dfs.datanode.data.dir", "/d");
        settings.set("dfs.namenode.rpc-address", "10.0.0.1:8020");
        let of =
            |settings: &Settings| datanode_config(settings, &DatanodeFlags::default()).unwrap().namenodes;
        assert_eq!(of(&settings), ["10.0.0.1:8020"]);
    }

    #[test]
    fn a_bad_value_names_its_place() {
        let folder = folder(&[("mobula.toml", "\n[client]\nblock_size = \"12q\"\n")]);
        let settings = Settings::load(None, Some(&folder.path().join("mobula.toml"))).unwrap();
        let message = settings.size("dfs.blocksize").unwrap_err().to_string();
        assert!(message.contains("mobula.toml:3") && message.contains("12q"), "{message}");
    }

    #[test]
    fn an_unknown_key_names_line_and_neighbour() {
        let folder = folder(&[("mobula.toml", "[client]\nreplicaton = 1\n")]);
        let error = Settings::load(None, Some(&folder.path().join("mobula.toml"))).unwrap_err();
        let message = format!("{error:#}");
        assert!(message.contains("mobula.toml:2"), "{message}");
        assert!(message.contains("client.replication"), "{message}");
    }

    #[test]
    fn a_logical_name_stands_for_its_namenodes() {
        let mut settings = Settings::default();
        settings.set("fs.defaultFS", "hdfs://mine");
        settings.set("dfs.ha.namenodes.mine", "a, b");
        settings.set("dfs.namenode.rpc-address.mine.a", "h1:1");
        settings.set("dfs.namenode.rpc-address.mine.b", "h2:2");
        assert_eq!(settings.namenodes().unwrap(), ["h1:1", "h2:2"]);
        settings.set("fs.defaultFS", "hdfs://plain");
        assert_eq!(settings.namenodes().unwrap(), ["plain:8020"]);
    }
}
