//! `mobula fs -text` of files that hold records: SequenceFiles and Avro's data files, as Hadoop 3.5.0 wrote them and
//! printed them.

use crate::copies::{folder, fs_in};
use crate::verbs::{assert_fails, cluster, says, store};

/// `IntWritable` and `Text`, a mark after the second record.
const PLAIN: &str = "\
    53455106206f72672e6170616368652e6861646f6f702e696f2e496e745772697461626c65196f72672e6170616368652e68\
    61646f6f702e696f2e5465787400000000000101610162cee40b391e70432d18d975c22aee6abf0000000b00000004ffffff\
    fb0668c3a96c6c6f00000005000000044000000000ffffffffcee40b391e70432d18d975c22aee6abf0000000e0000000400\
    00000009746162096c696e650a";

/// The same, values packed one by one.
const RECORDS: &str = "\
    53455106206f72672e6170616368652e6861646f6f702e696f2e496e745772697461626c65196f72672e6170616368652e68\
    61646f6f702e696f2e5465787401002a6f72672e6170616368652e6861646f6f702e696f2e636f6d70726573732e44656661\
    756c74436f64656300000001016101625c1e1fbfd7ca49a99824aa9a4c6e07650000001300000004fffffffb789c63cb38bc\
    3227271f000b9f03220000000d0000000440000000789c63000000010001ffffffff5c1e1fbfd7ca49a99824aa9a4c6e0765\
    000000160000000400000000789ce32c494ce2ccc9cc4be50200104202fc";

/// The same, packed in blocks.
const BLOCKS: &str = "\
    53455106206f72672e6170616368652e6861646f6f702e696f2e496e745772697461626c65196f72672e6170616368652e68\
    61646f6f702e696f2e5465787401012a6f72672e6170616368652e6861646f6f702e696f2e636f6d70726573732e44656661\
    756c74436f64656300000001016101628206c6a99d4d3dac30ce18e3af568b5fffffffff8206c6a99d4d3dac30ce18e3af56\
    8b5f020a789c63610100000e000910789cfbffffff6f07060606001ada04390a789c636704000011000910789c63cb38bc32\
    27279f01000ec10322ffffffff8206c6a99d4d3dac30ce18e3af568b5f0109789c630100000500050c789c63606060000000\
    04000109789ce30200000b000b12789ce32c494ce2ccc9cc4be50200104202fc";

/// The same, by bzip2.
const BLOCKS_BZIP2: &str = "\
    53455106206f72672e6170616368652e6861646f6f702e696f2e496e745772697461626c65196f72672e6170616368652e68\
    61646f6f702e696f2e546578740101286f72672e6170616368652e6861646f6f702e696f2e636f6d70726573732e425a6970\
    32436f6465630000000101610162ee6eefe39785a92486ef66b57e16a306ffffffffee6eefe39785a92486ef66b57e16a306\
    0225425a6839314159265359a968ccf7000000400004002000308c236177245385090a968ccf702d425a6839314159265359\
    0e18ec29000003c400c00040000008a00030cd34199011d5e2ee48a70a1201c31d852025425a6839314159265359cc46f84f\
    000000c0002080200030804158bb9229c284866237c27830425a68393141592653591c56b811000000c11441000044802008\
    002000310c00c9a60f9482dc2ee48a70a12038ad7022ffffffffee6eefe39785a92486ef66b57e16a3060125425a68393141\
    59265359a2f33697000000400004002000308c234177245385090a2f33697025425a683931415926535938fb2284000001c0\
    0040002000308c23585dc914e14240e3ec8a1025425a68393141592653599e7d969d000000400000102000308c2341772453\
    850909e7d969d031425a68393141592653592b73df4d000000c1800030322504002000221a683d420c9887566070bc5dc914\
    e14240adcf7d34";

/// `VLongWritable` and `BytesWritable`.
const NUMBERS: &str = "\
    53455106226f72672e6170616368652e6861646f6f702e696f2e564c6f6e675772697461626c65226f72672e617061636865\
    2e6861646f6f702e696f2e42797465735772697461626c6500000000000101610162cb02a0b0333947b5a296238a4b2df065\
    0000000900000002878000000003000aff0000000b000000078a010000000000000000000000000e00000009807fffffffff\
    ffffff0000000101";

/// `BooleanWritable` and `FloatWritable`.
const FLOATS: &str = "\
    53455106246f72672e6170616368652e6861646f6f702e696f2e426f6f6c65616e5772697461626c65226f72672e61706163\
    68652e6861646f6f702e696f2e466c6f61745772697461626c65000000000001016101625d18c88622233167e21af033796d\
    bfae0000000500000001014046666600000005000000010060ad78ec00000005000000010040200000";

/// `MapWritable` and `Text`.
const UNKNOWN: &str = "\
    53455106206f72672e6170616368652e6861646f6f702e696f2e4d61705772697461626c65196f72672e6170616368652e68\
    61646f6f702e696f2e546578740000000000010161016216f30b68a87f18e396f7e617ed392e470000000700000005000000\
    00000178";

/// A record of all types, in blocks packed by deflate.
const AVRO: &str = "\
    4f626a0104166176726f2e736368656d61d0097b2274797065223a227265636f7264222c226e616d65223a2252222c226e61\
    6d657370616365223a226e2e73222c226669656c6473223a5b7b226e616d65223a2262222c2274797065223a22626f6f6c65\
    616e227d2c7b226e616d65223a2269222c2274797065223a22696e74227d2c7b226e616d65223a226c222c2274797065223a\
    226c6f6e67227d2c7b226e616d65223a2266222c2274797065223a22666c6f6174227d2c7b226e616d65223a2264222c2274\
    797065223a22646f75626c65227d2c7b226e616d65223a226279222c2274797065223a226279746573227d2c7b226e616d65\
    223a2273222c2274797065223a22737472696e67227d2c7b226e616d65223a2265222c2274797065223a7b2274797065223a\
    22656e756d222c226e616d65223a2245222c2273796d626f6c73223a5b2258222c2259225d7d7d2c7b226e616d65223a2266\
    78222c2274797065223a7b2274797065223a226669786564222c226e616d65223a2246222c226e616d657370616365223a22\
    6f74686572222c2273697a65223a327d7d2c7b226e616d65223a2261222c2274797065223a7b2274797065223a2261727261\
    79222c226974656d73223a226c6f6e67227d7d2c7b226e616d65223a226d222c2274797065223a7b2274797065223a226d61\
    70222c2276616c756573223a22696e74227d7d2c7b226e616d65223a2275222c2274797065223a5b226e756c6c222c227374\
    72696e67222c2245222c226f746865722e46222c2252222c7b2274797065223a226172726179222c226974656d73223a2269\
    6e74227d5d7d2c7b226e616d65223a226e222c2274797065223a226e756c6c227d5d7d146176726f2e636f6465630e646566\
    6c617465006164dfcecdf6b61f1ebb3d3d402ec7a704920163606c603a7ba6c79e01085aae4f7764633ce1c8526cc8c0f89f\
    85891928c6c8dc0052c0e30051b0dc918d09a4c0888109ac808925db88858149aab8a44829868bf1f0ca474d6bf4016164df\
    cecdf6b61f1ebb3d3d402ec7a708ae0235cdad15c23014c5f1dbf4e5a52d1fcb246d2d998119008164812790b88ec002a050\
    08ce4120a84260302c01124869fefa77ee851611e5ec74825fdbe7de737af1b4b2483fa452285a5a0629e41252c0ae93b3f6\
    e859075942475916c812d3b9f6bae9dcfa7ef04cc13950742e039281fc179dbdf5df27cf1c64058eb21aa22045c0487abe98\
    bf0297e671f66c02af6122afc7e0fcfd056164dfcecdf6b61f1ebb3d3d402ec7a7";

/// A union of null, double, and a map of doubles.
const AVRO_UNION: &str = "\
    4f626a0102166176726f2e736368656d61645b226e756c6c222c22646f75626c65222c7b2274797065223a226d6170222c22\
    76616c756573223a22646f75626c65227d5d0021d572f3d072a328d513fafea7e2f3850c7a0002000000205fa00242020000\
    00000000f87f029a9999999999b93f0404026b000000000000f03f046b2295d626e80b2e213e0002000000000000f07f21d5\
    72f3d072a328d513fafea7e2f385";

const RECORDS_TEXT: &str = "-5\théllo\n1073741824\t\n0\ttab\tline\n\n";
const AVRO_TEXT: &str = r#"{"b":false,"i":-1,"l":128,"f":1.1,"d":1.0E8,"by":"\u0001ÈA","s":"s1","e":"X","fx":"\u0001ÿ","a":[1,-2],"m":{},"u":null,"n":null}
{"b":true,"i":-2,"l":16384,"f":2.2,"d":2.0E8,"by":"\u0002ÈA","s":"s2","e":"X","fx":"\u0002ÿ","a":[1,-2],"m":{"k2":2},"u":{"string":"str\"\\\n\u0001é€/"},"n":null}
{"b":false,"i":-3,"l":2097152,"f":3.3000002,"d":3.0E8,"by":"\u0003ÈA","s":"s3","e":"X","fx":"\u0003ÿ","a":[1,-2],"m":{"k3":3},"u":{"n.s.E":"Y"},"n":null}
{"b":false,"i":-5,"l":34359738368,"f":5.5,"d":5.0E8,"by":"\u0005ÈA","s":"s5","e":"X","fx":"\u0005ÿ","a":[1,-2],"m":{"k5":5},"u":{"n.s.R":{"b":true,"i":-4,"l":268435456,"f":4.4,"d":4.0E8,"by":"\u0004ÈA","s":"s4","e":"X","fx":"\u0004ÿ","a":[1,-2],"m":{"k4":4},"u":null,"n":null}},"n":null}
{"b":true,"i":-6,"l":4398046511104,"f":6.6000004,"d":6.0E8,"by":"\u0006ÈA","s":"s6","e":"X","fx":"\u0006ÿ","a":[1,-2],"m":{"k6":6},"u":{"array":[1,2]},"n":null}
{"b":false,"i":-7,"l":562949953421312,"f":7.7000003,"d":7.0E8,"by":"\u0007ÈA","s":"s7","e":"X","fx":"\u0007ÿ","a":[1,-2],"m":{"k7":7},"u":{"other.F":"\t÷"},"n":null}
"#;

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_written_out() {
    let cluster = cluster().await;
    let folder = folder(&[]);
    let run = async |path: &str| fs_in(&cluster, folder.path(), "", &["-text", path]).await;
    for (path, hex, text) in [
        ("/plain", PLAIN, RECORDS_TEXT),
        ("/records", RECORDS, RECORDS_TEXT),
        ("/blocks", BLOCKS, RECORDS_TEXT),
        ("/blocks.bz2", BLOCKS_BZIP2, RECORDS_TEXT),
        ("/numbers", NUMBERS, "-129\t00 0a ff\n1099511627776\t\n-9223372036854775808\t01\n"),
        ("/floats", FLOATS, "true\t3.1\nfalse\t1.0E20\nfalse\t2.5\n"),
        ("/avro", AVRO, AVRO_TEXT),
        (
            "/union",
            AVRO_UNION,
            r#"null
{"double":1.0E10}
{"double":"NaN"}
{"double":0.1}
{"map":{"k":1.0,"k\"":2.0E-9}}
{"double":"Infinity"}
"#,
        ),
    ] {
        store(&cluster, path, bytes(hex)).await;
        assert_eq!(run(path).await, says(text), "{path}");
    }
    store(&cluster, "/unknown", bytes(UNKNOWN)).await;
    let told = "text: WritableName can't load class: org.apache.hadoop.io.MapWritable";
    assert_fails(run("/unknown").await, told, 1);
    cluster.shutdown().await;
}

/// What bzip2 1.0.8 makes of "hello\n", and of runs.
const HELLO_BZIP2: &str =
    "425a6839314159265359c1c080e2000001410000100244a00030cd00c3462997177245385090c1c080e2";
const RUNS_BZIP2: &str = "425a6831314159265359f575d3b8000002c101e0003800008000082000212431086039d4e026ac55878bb9229c28487abae9dc00";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bzip2_is_unpacked_stream_after_stream() {
    let cluster = cluster().await;
    let folder = folder(&[]);
    let run = async |path: &str| fs_in(&cluster, folder.path(), "", &["-text", path]).await;
    let runs = format!("{}bbbbccccc", "a".repeat(1000));
    let both = [bytes(HELLO_BZIP2), bytes(RUNS_BZIP2)].concat();
    store(&cluster, "/both.bz2", both.clone()).await;
    assert_eq!(run("/both.bz2").await, says(&format!("hello\n{runs}")));
    // The first stream is shown before it is told that the second one is cut, or damaged.
    let mut flipped = both.clone();
    flipped[bytes(HELLO_BZIP2).len() + 30] ^= 1;
    for (path, packed) in [("/cut.bz2", both[..both.len() - 30].to_vec()), ("/flipped.bz2", flipped)] {
        store(&cluster, path, packed).await;
        let (shown, error, code) = run(path).await;
        assert_eq!((shown.as_str(), code), ("hello\n", 1), "{path}: {error}");
        assert!(error.starts_with("text: "), "{path}: {error}");
    }
    store(&cluster, "/plain.bz2", "plain text").await;
    assert!(run("/plain.bz2").await.1.starts_with("text: "));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_are_cut_or_damaged_are_told() {
    let cluster = cluster().await;
    let uri = cluster.uri();
    let folder = folder(&[]);
    let run = async |path: &str| fs_in(&cluster, folder.path(), "", &["-text", path]).await;
    store(&cluster, "/magic", "SEQ").await;
    assert_fails(run("/magic").await, &format!("text: {uri}/magic not a SequenceFile"), 1);
    for (name, hex) in [("plain", PLAIN), ("blocks", BLOCKS), ("avro", AVRO)] {
        let whole = bytes(hex);
        for (at, length) in [5, 40, 120, whole.len() - 20, whole.len() - 1].into_iter().enumerate() {
            let path = format!("/{name}{at}");
            store(&cluster, &path, whole[..length].to_vec()).await;
            let (_, error, code) = run(&path).await;
            assert!(code == 1 && error.starts_with("text: "), "{path} of {length}: {code} {error}");
        }
        let mut flipped = whole.clone();
        let last = flipped.len() - 2;
        flipped[last] ^= 1;
        store(&cluster, &format!("/{name}"), flipped).await;
        let (_, error, code) = run(&format!("/{name}")).await;
        assert!(!error.contains("panicked") && (code == 1 || name == "plain"), "{name}: {code} {error}");
    }
    cluster.shutdown().await;
}
