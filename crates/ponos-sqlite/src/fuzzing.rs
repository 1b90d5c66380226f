//! The decoder of rows, for the fuzz targets. No part of the interface.

use std::cell::RefCell;

use ponos_core::broker::Delivery;
use ponos_core::name::QueueName;
use rusqlite::{Connection, params};

use crate::subscription::{Claimed, delivery};

/// The columns of a message that are read when it is delivered, with the types that the table allows.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "they are the columns of schema/1.0.sql")]
pub struct Row {
    pub id: i64,
    pub fence: i64,
    pub ready_at: i64,
    pub losses: i64,
    pub message_id: Vec<u8>,
    pub head: Vec<u8>,
    pub body: Vec<u8>,
}

/// Has SQLite give the row back, and reads it as a subscription does.
///
/// # Errors
///
/// When a column is not what the reader expects there.
///
/// # Panics
///
/// When there is no memory for a database in it.
pub fn decode(row: &Row, queue: &QueueName) -> rusqlite::Result<Delivery> {
    thread_local! {
        static DATABASE: RefCell<Option<Connection>> = const { RefCell::new(None) };
    }
    DATABASE.with_borrow_mut(|database| {
        let connection = database
            .get_or_insert_with(|| Connection::open_in_memory().expect("a database in memory needs no file"));
        connection.prepare_cached("SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7")?.query_row(
            params![row.id, row.fence, row.ready_at, row.losses, row.message_id, row.head, row.body],
            |row| Ok(delivery(Claimed::read(row)?, queue, 0)),
        )
    })
}
