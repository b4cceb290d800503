//! Which NameNode is asked, how often, and under which id.

use mobula_client::CreateOptions;
use mobula_net::Env;
use mobula_wire::remote::{RemoteException, class};

use crate::fake::{Fake, listen};
use crate::{assert_same, pattern};

fn calls_of(fake: &Fake, wanted: &str) -> Vec<(i32, i32)> {
    let state = fake.namenode.state.lock();
    state.calls.iter().filter(|(method, ..)| method == wanted).map(|(_, id, tries)| (*id, *tries)).collect()
}

async fn look(client: &mobula_client::Client) -> Result<(), mobula_client::ClientError> {
    client.status("/").await.map(|status| assert_eq!(status, None))
}

#[tokio::test]
async fn a_standby_and_a_dead_one_are_passed_over() {
    let (standby, active) = (Fake::start(1).await, Fake::start(1).await);
    // A port on which nobody listens any more.
    let dead = listen(&Env::real()).await.local_addr().unwrap().to_string();
    standby.namenode.state.lock().exceptions = vec![RemoteException::new(class::STANDBY, "no"); 1000];
    let client = active.client_of(vec![dead, standby.address(), active.address()]);
    look(&client).await.unwrap();
    look(&client).await.unwrap();
    assert_eq!(calls_of(&standby, "getFileInfo").len(), 1, "the standby was asked once");
    let calls = calls_of(&active, "getFileInfo");
    assert_eq!(calls.len(), 2, "the active one answered twice");
    assert_eq!(calls[0].1, 2, "this was the third try");
    assert_eq!(calls[1].1, 0, "the next call goes there at once");
    let clients = |fake: &Fake| fake.namenode.state.lock().clients.clone();
    assert_eq!(clients(&standby), clients(&active), "both know the client by one id");
}

#[tokio::test]
async fn a_call_keeps_its_id_over_all_tries() {
    let fake = Fake::start(1).await;
    fake.namenode.state.lock().exceptions = vec![RemoteException::new(class::RETRIABLE, "later"); 3];
    look(&fake.client()).await.unwrap();
    let calls = calls_of(&fake, "getFileInfo");
    assert_eq!(calls.iter().map(|(_, tries)| *tries).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert!(calls.iter().all(|(id, _)| *id == calls[0].0), "{calls:?}");
}

#[tokio::test]
async fn other_exceptions_are_the_callers() {
    let fake = Fake::start(1).await;
    for class in [class::SAFE_MODE, class::ACCESS_CONTROL] {
        fake.namenode.state.lock().exceptions = vec![RemoteException::new(class, "no")];
        assert_eq!(look(&fake.client()).await.unwrap_err().class(), Some(class));
    }
}

#[tokio::test]
async fn complete_is_asked_until_it_says_yes() {
    let fake = Fake::start(3).await;
    fake.namenode.state.lock().completes_refused = 5;
    let client = fake.client();
    client.put("/f", pattern(1000), CreateOptions::default()).await.unwrap();
    assert_eq!(calls_of(&fake, "complete").len(), 6);
    assert_same(&client.get("/f").await.unwrap(), &pattern(1000));
}

#[tokio::test]
async fn a_block_that_is_not_replicated_yet_is_waited_for() {
    let fake = Fake::start(3).await;
    let client = fake.client();
    let mut writer = client.create("/f", CreateOptions::default()).await.unwrap();
    fake.namenode.state.lock().exceptions = vec![RemoteException::new(class::NOT_REPLICATED_YET, "wait"); 4];
    writer.write(pattern(1000)).await.unwrap();
    writer.close().await.unwrap();
    assert_eq!(calls_of(&fake, "addBlock").len(), 5);
}

#[tokio::test]
async fn a_listing_goes_over_all_its_pages() {
    let fake = Fake::start(1).await;
    let names = fake.client().list("/many").await.unwrap();
    assert_eq!(names.len(), 2500);
    assert!(names.windows(2).all(|pair| pair[0].path < pair[1].path), "in order, each once");
    assert_eq!(calls_of(&fake, "getListing").len(), 3);
    let missing = fake.client().list("/none").await.unwrap_err();
    assert_eq!(missing.class(), Some(class::FILE_NOT_FOUND));
    assert!(fake.client().open("/none").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn leases_are_renewed_while_a_file_is_open_and_no_longer() {
    let fake = Fake::start(3).await;
    let client = fake.client();
    let first = client.create("/a", CreateOptions::default()).await.unwrap();
    let second = client.create("/b", CreateOptions::default()).await.unwrap();
    let wait = || tokio::time::sleep(std::time::Duration::from_secs(31));
    let renewals = || calls_of(&fake, "renewLease").len();
    let eventually = async |count: usize| {
        for _ in 0..10_000 {
            if renewals() == count {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("{} renewals, not {count}", renewals());
    };
    wait().await;
    eventually(1).await;
    first.close().await.unwrap();
    wait().await;
    eventually(2).await;
    second.close().await.unwrap();
    wait().await;
    wait().await;
    assert_eq!(renewals(), 2, "nothing is open any more");
}
