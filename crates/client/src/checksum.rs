//! HDFS's file checksums, from what the DataNodes say of each block (HDFS: `FileChecksumHelper`).

use std::time::Duration;

use bytes::Buf;
use md5::{Digest, Md5};
use mobula_proto::hdfs;
use mobula_wire::checksum::{ChecksumKind as Crc, Combiner};
use mobula_wire::datatransfer::Op;

use crate::client::{ChecksumKind, Shared};
use crate::error::ClientError;
use crate::link::{Link, address_of, broken};

/// Longest wait for a connection, and for the checksum of one block.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// The buffer that Java collects the blocks' MD5s in, and hashes whole; it doubles when full.
const MD5_BUFFER_BYTES: usize = 32;

/// The algorithm's name and the checksum's bytes, as `hdfs dfs -checksum` prints them.
pub(crate) async fn of_file(
    client: &Shared,
    path: &str,
    kind: ChecksumKind,
) -> Result<(String, Vec<u8>), ClientError> {
    let request =
        hdfs::GetBlockLocationsRequestProto { src: path.into(), offset: 0, length: i64::MAX as u64 };
    let located = client.namenode.get_block_locations(request).await?.locations.unwrap_or_default();
    if located.under_construction {
        return Err(ClientError::Usage(format!(
            "Fail to get checksum, since file {path} is under construction."
        )));
    }
    let mut answers = Vec::with_capacity(located.blocks.len());
    for block in &located.blocks {
        answers.push(of_block(client, block, kind).await?);
    }
    let Some(first) = answers.first() else {
        // What HDFS says of an empty file, whichever kind was asked for.
        return Ok(("MD5-of-0MD5-of-0CRC32".into(), md5_bytes(0, 0, &[])));
    };
    let crc = Crc::from_number(first.crc_type.unwrap_or_default())
        .map_err(|error| ClientError::DataNodes(error.to_string()))?;
    if answers
        .iter()
        .any(|answer| answer.crc_type != first.crc_type || answer.bytes_per_crc != first.bytes_per_crc)
    {
        let text = format!("the blocks of {path} have checksums of different types or sizes");
        return Err(ClientError::DataNodes(text));
    }
    match kind {
        ChecksumKind::Md5 => {
            let per_block = if answers.len() > 1 { first.crc_per_block } else { 0 };
            let per_crc = first.bytes_per_crc;
            let name = format!("MD5-of-{per_block}MD5-of-{per_crc}{}", crc.name());
            Ok((name, md5_bytes(per_crc, per_block, &answers)))
        }
        ChecksumKind::Composite => {
            let whole = composed(crc, &located.blocks, &answers)?;
            Ok((format!("COMPOSITE-{}", crc.name()), whole.to_be_bytes().to_vec()))
        }
    }
}

/// `i32 bytes per CRC, i64 CRCs per block, MD5`.
fn md5_bytes(per_crc: u32, per_block: u64, answers: &[hdfs::OpBlockChecksumResponseProto]) -> Vec<u8> {
    let mut buffer: Vec<u8> = answers.iter().flat_map(|answer| answer.block_checksum.to_vec()).collect();
    let mut padded = MD5_BUFFER_BYTES;
    while padded < buffer.len() {
        padded *= 2;
    }
    buffer.resize(padded, 0);
    let mut bytes = per_crc.to_be_bytes().to_vec();
    bytes.extend(per_block.to_be_bytes());
    bytes.extend(Md5::digest(&buffer));
    bytes
}

fn composed(
    kind: Crc,
    blocks: &[hdfs::LocatedBlockProto],
    answers: &[hdfs::OpBlockChecksumResponseProto],
) -> Result<u32, ClientError> {
    let mut whole = 0;
    for (block, answer) in blocks.iter().zip(answers) {
        let mut crc = answer.block_checksum.clone();
        if crc.len() != 4 {
            let text = format!("a composite CRC of {} bytes for blk_{}", crc.len(), block.b.block_id);
            return Err(ClientError::DataNodes(text));
        }
        whole = Combiner::new(kind, block.b.num_bytes.unwrap_or(0)).combine(whole, crc.get_u32());
    }
    Ok(whole)
}

/// A block's checksum from the first of its DataNodes that answers.
async fn of_block(
    client: &Shared,
    block: &hdfs::LocatedBlockProto,
    kind: ChecksumKind,
) -> Result<hdfs::OpBlockChecksumResponseProto, ClientError> {
    let wire_kind = match kind {
        ChecksumKind::Md5 => hdfs::BlockChecksumTypeProto::Md5crc,
        ChecksumKind::Composite => hdfs::BlockChecksumTypeProto::CompositeCrc,
    };
    let request = hdfs::OpBlockChecksumProto {
        header: hdfs::BaseHeaderProto {
            block: block.b.clone(),
            token: Some(block.block_token.clone()),
            trace_info: None,
        },
        block_checksum_options: Some(hdfs::BlockChecksumOptionsProto {
            block_checksum_type: Some(wire_kind as i32),
            stripe_length: None,
        }),
    };
    let mut reasons = Vec::new();
    for node in &block.locs {
        let address = address_of(node);
        let answer = async {
            let mut link = Link::connect(&client.env, &address, CONNECT_LIMIT).await?;
            let answer = link.ask(Op::BlockChecksum, &request, ANSWER_LIMIT).await?;
            answer.checksum_response.ok_or_else(|| {
                broken(format!("status {} {}", answer.status, answer.message.unwrap_or_default()))
            })
        };
        match answer.await {
            Ok(answer) => return Ok(answer),
            Err(error) => reasons.push(format!("{address}: {error}")),
        }
    }
    let reasons = reasons.join("; ");
    Err(ClientError::DataNodes(format!("no checksum of blk_{}: {reasons}", block.b.block_id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_has_the_checksum_that_hdfs_gives_it() {
        let hex: String = md5_bytes(0, 0, &[]).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "00000000000000000000000070bc8f4b72a86921468bf8e8441dce51");
    }

    #[test]
    fn crcs_of_blocks_compose_to_that_of_the_file() {
        let data: Vec<u8> = (0..5000_u32).map(|i| (i * 7) as u8).collect();
        let (mut blocks, mut answers) = (Vec::new(), Vec::new());
        for part in data.chunks(2048) {
            let mut block = hdfs::LocatedBlockProto::default();
            block.b.num_bytes = Some(part.len() as u64);
            blocks.push(block);
            answers.push(hdfs::OpBlockChecksumResponseProto {
                block_checksum: Crc::Crc32c.crc(part).to_be_bytes().to_vec().into(),
                ..Default::default()
            });
        }
        let whole = composed(Crc::Crc32c, &blocks, &answers).expect("four bytes each");
        assert_eq!(whole, Crc::Crc32c.crc(&data));
    }
}
