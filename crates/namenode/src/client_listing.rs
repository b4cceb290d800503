//! `getListing` and `getBatchedListing`: pages of directories, with or without locations.

use bytes::{BufMut, Bytes, BytesMut};
use mobula_namespace::{FileKind, FileStatus};
use mobula_proto::hdfs;
use mobula_rpc::Responder;
use mobula_types::HdfsPath;
use mobula_wire::{encode_delimited, varint};
use prost::Message;

use crate::asker::Asker;
use crate::client_rpc::{decode, path, with_locations};
use crate::exceptions::Refusal;
use crate::located::Locator;
use crate::service::{Service, WithLocations};
use crate::status_proto;

/// `DirectoryListingProto.partialListing`, as a field's first byte.
const PARTIAL_LISTING: u8 = 1 << 3 | 2;
/// `DirectoryListingProto.remainingEntries`.
const REMAINING_ENTRIES: u8 = 2 << 3;
/// `GetListingResponseProto.dirList`.
const DIR_LIST: u8 = 1 << 3 | 2;

/// `getListing`.
pub fn get_listing(service: &Service, asker: &Asker, body: &[u8], reply: Responder) {
    match decode(body).and_then(|request| listing(service, asker, &request)) {
        Ok(answer) => reply.success_bytes(&answer),
        Err(refusal) => reply.error(&refusal.into()),
    }
}

/// A `GetListingResponseProto`. Written entry by entry: a thousand of them as one message in memory, measured once for
/// each message that it lies in, takes more time than finding them.
fn listing(
    service: &Service,
    asker: &Asker,
    request: &hdfs::GetListingRequestProto,
) -> Result<BytesMut, Refusal> {
    let limit = service.config.listing_max;
    let with = with_locations(request.need_location);
    let mut entries = BytesMut::new();
    let put = |entry: hdfs::HdfsFileStatusProto| {
        entries.put_u8(PARTIAL_LISTING);
        encode_delimited(&entry, &mut entries);
    };
    let path = path(&request.src)?;
    let remaining = page(service, asker, &path, &request.start_after, limit, with, put)?;
    let Some(remaining) = remaining else { return Ok(BytesMut::new()) };
    entries.put_u8(REMAINING_ENTRIES);
    varint::put(u64::from(remaining), &mut entries);
    let mut answer = BytesMut::with_capacity(1 + varint::VARINT_LENGTH_MAX + entries.len());
    answer.put_u8(DIR_LIST);
    varint::put(entries.len() as u64, &mut answer);
    answer.put_slice(&entries);
    Ok(answer)
}

/// Gives the entries of a page of a directory to `put`, and answers how many remain; none if there is no such file.
fn page(
    service: &Service,
    asker: &Asker,
    path: &HdfsPath,
    start_after: &[u8],
    limit: usize,
    with: WithLocations,
    mut put: impl FnMut(hdfs::HdfsFileStatusProto),
) -> Result<Option<u32>, Refusal> {
    let Some(listing) = service.listing(asker, path, start_after, limit)? else { return Ok(None) };
    let mut remaining = listing.remaining;
    let count = listing.entries.len();
    let mut budget = limit;
    for (at, entry) in listing.entries.into_iter().enumerate() {
        match with {
            WithLocations::No => put(named(entry)),
            WithLocations::Yes if budget == 0 => {
                remaining += (count - at) as u64;
                break;
            }
            WithLocations::Yes => {
                let (status, cost) = located_status(service, asker, entry)?;
                budget = budget.saturating_sub(cost);
                put(status);
            }
        }
    }
    Ok(Some(u32::try_from(remaining).unwrap_or(u32::MAX)))
}

/// A status under its own name.
fn named(mut entry: FileStatus) -> hdfs::HdfsFileStatusProto {
    let name = std::mem::take(&mut entry.name);
    status_proto::status(entry, name.into())
}

/// A status with locations, and what it takes from HDFS's budget: its blocks times its replicas.
fn located_status(
    service: &Service,
    asker: &Asker,
    entry: FileStatus,
) -> Result<(hdfs::HdfsFileStatusProto, usize), Refusal> {
    let FileKind::File { replication, .. } = entry.kind else { return Ok((named(entry), 0)) };
    let file = service.blocks_of_listed(&entry)?;
    let reader = asker.machine();
    let locations = service.roster.ask(|fleet, now| {
        Locator { fleet, now, pool: service.format.pool.as_str(), reader: &reader }.file(&file)
    });
    let mut status = named(entry);
    status.locations = Some(locations);
    Ok((status, file.blocks.len() * usize::from(replication)))
}

/// `getBatchedListing`: several directories, a page's worth of entries over all of them.
///
/// # Errors
/// Of the request itself; a directory's own go into its place.
pub fn get_batched_listing(
    service: &Service,
    asker: &Asker,
    request: hdfs::GetBatchedListingRequestProto,
) -> Result<hdfs::GetBatchedListingResponseProto, Refusal> {
    service.check_leads()?;
    let (count, most) = (request.paths.len(), service.config.batched_paths_max);
    if count > most {
        let words = format!("Too many source paths ({count} > {most})");
        return Err(Refusal::JavaIllegalArgument(words));
    }
    let checksum = checksum(&request.paths);
    let mut key = batched_key(&request.start_after, &checksum)?;
    let mut listings = Vec::new();
    let mut room = service.config.listing_max;
    let with = with_locations(request.need_location);
    while let Some(text) = request.paths.get(key.path_index as usize) {
        let (listing, next) = one_of_batch(service, asker, text, &key, room, with);
        room = room.saturating_sub(listing.partial_listing.len());
        listings.push(listing);
        match next {
            Some(start_after) => key.start_after = start_after,
            None => {
                key.path_index += 1;
                key.start_after = Bytes::new();
            }
        }
        if room == 0 || key.path_index as usize == request.paths.len() {
            break;
        }
    }
    let has_more = (key.path_index as usize) < request.paths.len();
    let start_after = if has_more { Bytes::from(key.encode_to_vec()) } else { Bytes::new() };
    Ok(hdfs::GetBatchedListingResponseProto { listings, has_more, start_after })
}

/// One directory's part, and the name to go on after if there is more of it.
fn one_of_batch(
    service: &Service,
    asker: &Asker,
    text: &str,
    key: &hdfs::BatchedListingKeyProto,
    room: usize,
    with: WithLocations,
) -> (hdfs::BatchedDirectoryListingProto, Option<Bytes>) {
    let mut partial_listing = Vec::new();
    let listed = path(text).and_then(|path| {
        let put = |entry| partial_listing.push(entry);
        let found = page(service, asker, &path, &key.start_after, room, with, put)?;
        found.ok_or_else(|| {
            let error = mobula_wire::remote::RemoteException::new(
                mobula_wire::remote::class::FILE_NOT_FOUND,
                format!("Path {text} does not exist"),
            );
            Refusal::Remote(error)
        })
    });
    let mut answer = hdfs::BatchedDirectoryListingProto {
        partial_listing: Vec::new(),
        parent_idx: key.path_index,
        exception: None,
    };
    match listed {
        Err(refusal) => {
            let class_name = refusal.class().to_owned();
            let message = Some(refusal.to_string());
            answer.exception = Some(hdfs::RemoteExceptionProto { class_name, message });
            (answer, None)
        }
        Ok(remaining) => {
            answer.partial_listing = partial_listing;
            let more = remaining > 0;
            let last = answer.partial_listing.last().map(|entry| entry.path.clone());
            (answer, last.filter(|_| more))
        }
    }
}

/// The cursor that an earlier page gave, or the beginning.
fn batched_key(start_after: &Bytes, checksum: &Bytes) -> Result<hdfs::BatchedListingKeyProto, Refusal> {
    if start_after.is_empty() {
        let checksum = checksum.clone();
        return Ok(hdfs::BatchedListingKeyProto { checksum, path_index: 0, start_after: Bytes::new() });
    }
    let key = hdfs::BatchedListingKeyProto::decode(&start_after[..])
        .map_err(|error| Refusal::BadRequest(format!("unreadable cursor: {error}")))?;
    if key.checksum != *checksum {
        let words = "Requested paths do not match the paths of the cursor";
        return Err(Refusal::JavaIllegalArgument(words.into()));
    }
    Ok(key)
}

/// Ties a cursor to the paths that it was given for (FNV-1a, 64 bits).
fn checksum(paths: &[String]) -> Bytes {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in paths.iter().flat_map(|path| path.bytes().chain([0])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    Bytes::copy_from_slice(&hash.to_be_bytes())
}
