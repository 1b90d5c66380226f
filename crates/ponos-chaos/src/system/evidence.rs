//! What a broker says of itself when nothing moves any more: asked before the harness gives up, because the node is gone
//! afterwards, and with it who held what.

use std::fmt::Write as _;

use ponos_testbed::Node;

/// What `rabbitmqctl` is asked; `%` stands for the virtual host.
const QUESTIONS: [&str; 4] = [
    "list_queues -p % name type state messages_ready messages_unacknowledged consumers leader online",
    "list_consumers -p % queue_name channel_pid consumer_tag ack_required prefetch_count active",
    "list_channels pid connection number consumer_count messages_unacknowledged messages_unconfirmed prefetch_count",
    "list_connections pid name state channels recv_oct send_oct send_pend",
];

/// Per quorum queue what its own state machine believes: its figures, and for each consumer how much it was given and how
/// much more it may be given (each number, and the size of each map, of RabbitMQ's `#consumer{}`). The channels' view
/// comes from elsewhere, so that the two can be compared.
const QUORUM: &str = "
    [{amqqueue:get_name(Q),
      try
          {Name, _} = amqqueue:get_pid(Q),
          Short = fun(M) when is_map(M) -> {map, map_size(M)};
                     (A) when is_atom(A); is_integer(A) -> A;
                     (_) -> '_' end,
          Look = fun(S) ->
              {maps:with([num_messages, num_ready_messages, num_checked_out, num_consumers, num_discarded],
                         rabbit_fifo:overview(S)),
               [{K, [Short(E) || E <- tuple_to_list(C)]}
                || M <- tuple_to_list(S), is_map(M), {K, C} <- maps:to_list(M),
                   is_tuple(C), element(1, C) =:= consumer]}
          end,
          {ok, {_, Seen}, Leader} = ra:local_query({Name, node()}, Look, 5000),
          {Leader, Seen}
      catch _:Why -> Why end}
     || Q <- rabbit_amqqueue:list(), amqqueue:get_type(Q) =:= rabbit_quorum_queue].";

/// Queues, consumers, channels and connections of these nodes, the state of each quorum queue, and the logs' ends.
pub(crate) fn of(nodes: &[&Node], vhost: &str) -> String {
    let mut text = String::new();
    for node in nodes {
        let _ = writeln!(text, "=== {}, process {}", node.name(), node.pid());
        if node.pid() != 0 {
            for question in QUESTIONS {
                let question: Vec<&str> =
                    question.split(' ').map(|word| if word == "%" { vhost } else { word }).collect();
                let answer = node.ctl(&question).unwrap_or_else(|reason| reason);
                let _ = writeln!(text, "--- rabbitmqctl {}\n{}", question.join(" "), answer.trim_end());
            }
            let answer = node.ctl(&["eval", QUORUM]).unwrap_or_else(|reason| reason);
            let _ = writeln!(text, "--- the quorum queues' own state\n{}", answer.trim_end());
        }
        let _ = writeln!(text, "{}", node.log_tail());
    }
    text
}
