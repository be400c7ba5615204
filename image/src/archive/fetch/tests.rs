//! Against a server that says what a test wants.

use super::*;
use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
};

/// A server that answers each request with `head` and then `len` letters; its URL.
fn server(head: &'static str, len: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            // The client may hang up before the end: that is what some tests are about.
            let _ = stream
                .write_all(format!("HTTP/1.1 {head}\r\nconnection: close\r\n\r\n").as_bytes())
                .and_then(|()| stream.write_all(&vec![b'x'; len]));
        }
    });
    url
}

fn fetcher(mirror: &str) -> Fetcher {
    Fetcher::new(mirror, Arc::new(crate::progress::Silent))
}

#[test]
fn a_text_without_end_is_not_read() {
    let short = server("200 OK", 100);
    assert_eq!(fetcher(&short).text("InRelease").unwrap().len(), 100);
    let long = server("200 OK", LONGEST_TEXT + 1);
    let error = fetcher(&long).text("InRelease").unwrap_err().to_string();
    assert!(error.contains("longer than"), "{error}");
}

#[test]
fn what_is_gone_is_told_by_where_it_was_pinned() {
    let url = server("404 Not Found", 0);
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path().to_owned()).unwrap();
    let told = |location: String| {
        let wanted = Wanted {
            location,
            sha256: Digest::of(b"x"),
            size: None,
        };
        let gone = fetcher(&url).objects(&cache, &[wanted], "k3s");
        gone.unwrap_err().to_string()
    };
    assert!(told("pool/x.deb".into()).contains("`holdfast lock k3s`"));
    let pinned = told(format!("{url}/k3s"));
    assert!(
        pinned.contains("[k3s]") && !pinned.contains("holdfast lock"),
        "{pinned}"
    );
}
