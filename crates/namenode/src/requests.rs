//! How large requests may be, before they are decoded: a list's empty messages are two bytes each, and some hundred once
//! they are read.

use mobula_fleet::VOLUMES_MAX;
use mobula_rpc::Call;
use mobula_wire::count_fields;
use mobula_wire::rpc::MESSAGE_LENGTH_MAX;

use crate::client_block::NODES_MAX;
use crate::client_reopen::CONCAT_SOURCES_MAX;
use crate::exceptions::Refusal;

/// Requests up to this length, in bytes, are decoded without a look.
const SMALL_BYTES: usize = 16 << 10;
/// Most methods ask for so many bytes at most: the longest paths, or some thousand volumes.
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// Sources of a `concat`, of more than three thousand bytes each on average.
const CONCAT_BYTES_MAX: usize = 32 << 20;
/// Pieces of a full report, of some thousand replicas each.
const REPORT_PIECES_MAX: usize = 65_536;
/// Replicas that a node tells of at once, as after an hour without a NameNode.
const NEWS_MAX: usize = 2_000_000;

/// What a request may have: bytes, and items in the lists that paths of field numbers lead to.
struct Limit(usize, &'static [(&'static [u32], usize)]);

fn limit(method: &[u8]) -> Limit {
    match method {
        b"addBlock" => Limit(REQUEST_BYTES_MAX, &[(&[4], NODES_MAX), (&[6], NODES_MAX)]),
        b"getAdditionalDatanode" => {
            Limit(REQUEST_BYTES_MAX, &[(&[3], NODES_MAX), (&[4], NODES_MAX), (&[7], NODES_MAX)])
        }
        b"updatePipeline" => Limit(REQUEST_BYTES_MAX, &[(&[4], NODES_MAX), (&[5], NODES_MAX)]),
        b"reportBadBlocks" => Limit(REQUEST_BYTES_MAX, &[(&[1], NODES_MAX), (&[1, 3], NODES_MAX)]),
        b"concat" => Limit(CONCAT_BYTES_MAX, &[(&[2], CONCAT_SOURCES_MAX)]),
        b"blockReport" => Limit(MESSAGE_LENGTH_MAX, &[(&[3], VOLUMES_MAX), (&[3, 4], REPORT_PIECES_MAX)]),
        b"blockReceivedAndDeleted" => Limit(MESSAGE_LENGTH_MAX, &[(&[3], VOLUMES_MAX), (&[3, 2], NEWS_MAX)]),
        _ => Limit(REQUEST_BYTES_MAX, &[]),
    }
}

/// Refuses a call whose request is larger than any that its method asks for.
///
/// # Errors
/// BadRequest.
pub fn check(call: &Call) -> Result<(), Refusal> {
    let length = call.body.len();
    if length <= SMALL_BYTES {
        return Ok(());
    }
    let method = String::from_utf8_lossy(&call.method);
    let Limit(most, lists) = limit(&call.method);
    if length > most {
        return Err(Refusal::BadRequest(format!(
            "{method} with a request of {length} bytes, more than {most}"
        )));
    }
    for (path, most) in lists {
        let count = count_fields(&call.body, path);
        let count = count.map_err(|error| Refusal::BadRequest(format!("unreadable request: {error}")))?;
        if count > *most {
            return Err(Refusal::BadRequest(format!("{method} with a list of {count}, more than {most}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use mobula_types::ClientId;

    /// A request of so many bytes, all of them empty messages of that field.
    fn empty(method: &'static str, field: u8, bytes: usize) -> Result<(), String> {
        let call = Call {
            protocol: "p".into(),
            method: method.into(),
            body: [field << 3 | 2, 0].repeat(bytes / 2).into(),
            user: "u".into(),
            real_user: None,
            peer: "127.0.0.1:1".parse().unwrap(),
            client_id: ClientId::default(),
            call_id: 0,
            retry_count: 0,
        };
        check(&call).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn lists_of_empty_messages_are_counted_before_they_are_read() {
        let words = |what: &str| Err(what.to_string());
        let much = words("addBlock with a request of 8388608 bytes, more than 1048576");
        assert_eq!(empty("addBlock", 4, 8 << 20), much);
        assert_eq!(empty("addBlock", 4, 1 << 20), words("addBlock with a list of 524288, more than 512"));
        assert_eq!(empty("addBlock", 4, SMALL_BYTES), Ok(()), "so many may be read");
        assert_eq!(
            empty("blockReport", 3, 8 << 20),
            words("blockReport with a list of 4194304, more than 1024")
        );
        assert_eq!(empty("concat", 2, 1 << 20), words("concat with a list of 524288, more than 10000"));
        assert_eq!(empty("mkdirs", 1, 1 << 20), Ok(()));
    }
}
