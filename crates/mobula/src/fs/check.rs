//! `test`: answers with the exit code.

use super::failure::{Failure, Outcome};
use super::filesystem::FileSystem;
use super::item::Item;
use super::options::Format;
use super::shell::Shell;

/// `checkAccess`'s numbers (`FsActionProto`).
const READ: i32 = 4;
const WRITE: i32 = 2;

/// Exit code 0 for yes, 1 for no.
pub async fn test(shell: &mut Shell, mut args: Vec<String>) -> Outcome<()> {
    let given = Format::new(1, 1, &["e", "d", "f", "s", "z", "w", "r"]).parse(&mut args)?;
    let flags: Vec<&str> = given.flags().collect();
    let flag = match flags.as_slice() {
        [] => return Err(Failure::usage("No test flag given")),
        [flag] => *flag,
        _ => return Err(Failure::usage("Only one test flag is allowed")),
    };
    for item in shell.expand_all(&args).await? {
        match answer(&item, flag).await {
            Ok(true) => {}
            Ok(false) => shell.code = 1,
            Err(failure) => shell.settle(Err(failure))?,
        }
    }
    Ok(())
}

async fn answer(item: &Item, flag: &str) -> Outcome<bool> {
    let Some(status) = &item.status else { return Ok(false) };
    Ok(match flag {
        "d" => status.is_directory(),
        "f" => status.is_file(),
        "s" => status.length > 0,
        "z" => status.length == 0,
        "w" => may(item, WRITE).await?,
        "r" => may(item, READ).await?,
        _ => true,
    })
}

async fn may(item: &Item, action: i32) -> Outcome<bool> {
    match &item.fs {
        FileSystem::Hdfs(hdfs) => hdfs.may(&item.path, action).await,
        FileSystem::Local(_) => {
            let flag = match action {
                WRITE => nix::unistd::AccessFlags::W_OK,
                _ => nix::unistd::AccessFlags::R_OK,
            };
            Ok(nix::unistd::access(item.path.as_str(), flag).is_ok())
        }
    }
}
