//! The words that the rules of tense know: sorted, so that a look-up is a binary search, and disjoint.
//!
//! A missing word costs a user one `verb = unchecked`; a wrong one lets a wrong name pass. So the lists hold
//! what services say, and `names.rs` of the tests is the place to argue with.

/// `(participle, base)` of the irregular verbs. The participle is what a suggestion for an event uses.
#[rustfmt::skip]
pub(super) const PARTICIPLES: &[(&str, &str)] = &[
    ("arisen", "arise"), ("awoken", "awake"), ("beaten", "beat"), ("been", "be"), ("befallen", "befall"),
    ("begotten", "beget"), ("begun", "begin"), ("beheld", "behold"), ("bent", "bend"), ("bitten", "bite"),
    ("bled", "bleed"), ("blown", "blow"), ("born", "bear"), ("borne", "bear"), ("bought", "buy"),
    ("bound", "bind"), ("bred", "breed"), ("broken", "break"), ("brought", "bring"), ("built", "build"),
    ("burnt", "burn"), ("caught", "catch"), ("chosen", "choose"), ("clung", "cling"), ("crept", "creep"),
    ("dealt", "deal"), ("done", "do"), ("drawn", "draw"), ("dreamt", "dream"), ("driven", "drive"),
    ("drunk", "drink"), ("dug", "dig"), ("dwelt", "dwell"), ("eaten", "eat"), ("fallen", "fall"),
    ("fed", "feed"), ("felt", "feel"), ("fled", "flee"), ("flown", "fly"), ("flung", "fling"),
    ("forbidden", "forbid"), ("foreseen", "foresee"), ("foretold", "foretell"), ("forgiven", "forgive"),
    ("forgone", "forgo"), ("forgotten", "forget"), ("forsaken", "forsake"), ("fought", "fight"),
    ("found", "find"), ("frozen", "freeze"), ("given", "give"), ("gone", "go"), ("got", "get"),
    ("gotten", "get"), ("grown", "grow"), ("had", "have"), ("heard", "hear"), ("held", "hold"),
    ("hewn", "hew"), ("hidden", "hide"), ("hung", "hang"), ("inlaid", "inlay"),
    ("interwoven", "interweave"), ("kept", "keep"), ("knelt", "kneel"), ("known", "know"),
    ("laid", "lay"), ("lain", "lie"), ("leant", "lean"), ("leapt", "leap"), ("learnt", "learn"),
    ("led", "lead"), ("left", "leave"), ("lent", "lend"), ("lit", "light"), ("lost", "lose"),
    ("made", "make"), ("meant", "mean"), ("met", "meet"), ("mown", "mow"), ("paid", "pay"),
    ("proven", "prove"), ("ridden", "ride"), ("risen", "rise"), ("rung", "ring"), ("said", "say"),
    ("sat", "sit"), ("seen", "see"), ("sent", "send"), ("sewn", "sew"), ("shaken", "shake"),
    ("shaven", "shave"), ("shone", "shine"), ("shorn", "shear"), ("shot", "shoot"), ("shown", "show"),
    ("shrunk", "shrink"), ("slain", "slay"), ("slept", "sleep"), ("slid", "slide"), ("slung", "sling"),
    ("smitten", "smite"), ("sold", "sell"), ("sought", "seek"), ("sown", "sow"), ("sped", "speed"),
    ("spelt", "spell"), ("spent", "spend"), ("spilt", "spill"), ("spoilt", "spoil"), ("spoken", "speak"),
    ("sprung", "spring"), ("spun", "spin"), ("stolen", "steal"), ("stood", "stand"), ("strewn", "strew"),
    ("striven", "strive"), ("struck", "strike"), ("stuck", "stick"), ("stung", "sting"),
    ("stunk", "stink"), ("sung", "sing"), ("sunk", "sink"), ("swept", "sweep"), ("swollen", "swell"),
    ("sworn", "swear"), ("swum", "swim"), ("swung", "swing"), ("taken", "take"), ("taught", "teach"),
    ("thought", "think"), ("thrown", "throw"), ("told", "tell"), ("torn", "tear"), ("trodden", "tread"),
    ("understood", "understand"), ("upheld", "uphold"), ("waylaid", "waylay"), ("wept", "weep"),
    ("withdrawn", "withdraw"), ("withheld", "withhold"), ("withstood", "withstand"), ("woken", "wake"),
    ("won", "win"), ("worn", "wear"), ("wound", "wind"), ("woven", "weave"), ("written", "write"),
    ("wrung", "wring"),
];

/// `(preterite, base)` where it differs from the participle.
#[rustfmt::skip]
pub(super) const PRETERITES: &[(&str, &str)] = &[
    ("arose", "arise"), ("ate", "eat"), ("awoke", "awake"), ("bade", "bid"), ("became", "become"),
    ("befell", "befall"), ("began", "begin"), ("bit", "bite"), ("blew", "blow"), ("bore", "bear"),
    ("broke", "break"), ("came", "come"), ("chose", "choose"), ("did", "do"), ("drank", "drink"),
    ("drew", "draw"), ("drove", "drive"), ("fell", "fall"), ("flew", "fly"), ("forbade", "forbid"),
    ("foresaw", "foresee"), ("forgave", "forgive"), ("forgot", "forget"), ("forsook", "forsake"),
    ("froze", "freeze"), ("gave", "give"), ("grew", "grow"), ("hid", "hide"), ("knew", "know"),
    ("ran", "run"), ("rang", "ring"), ("rode", "ride"), ("rose", "rise"), ("sang", "sing"),
    ("sank", "sink"), ("saw", "see"), ("shook", "shake"), ("shrank", "shrink"), ("slew", "slay"),
    ("spat", "spit"), ("spoke", "speak"), ("sprang", "spring"), ("stank", "stink"), ("stole", "steal"),
    ("strode", "stride"), ("strove", "strive"), ("swam", "swim"), ("swore", "swear"), ("threw", "throw"),
    ("took", "take"), ("tore", "tear"), ("trod", "tread"), ("was", "be"), ("went", "go"), ("were", "be"),
    ("withdrew", "withdraw"), ("woke", "wake"), ("wore", "wear"), ("wove", "weave"), ("wrote", "write"),
];

/// Present and past are one word (`set`, `read`), or the past of one verb is the present of another
/// (`ground`, `rebound`): legal in an event and in a task.
#[rustfmt::skip]
pub(super) const BOTH: &[&str] = &[
    "become", "beset", "bet", "bid", "broadcast", "burst", "bust", "cast", "come", "cost", "cut", "fit",
    "forecast", "ground", "hit", "hurt", "input", "knit", "let", "multicast", "offset", "output",
    "podcast", "preset", "proofread", "put", "quit", "read", "rebound", "reset", "retrofit", "rid", "run",
    "set", "shed", "shut", "simulcast", "slit", "spit", "split", "spread", "sublet", "telecast", "thrust",
    "typecast", "typeset", "undercut", "upset", "webcast", "wed", "wet",
];

/// The only pasts in `-eed`: every other word that ends so is a noun or a present (`seed`, `proceed`,
/// `newsfeed`).
#[rustfmt::skip]
pub(super) const PASTS_IN_EED: &[&str] = &[
    "agreed", "decreed", "disagreed", "filigreed", "freed", "guaranteed", "kneed", "pedigreed", "peed",
    "refereed", "teed", "treed",
];

/// Words in `-ed` that are not pasts.
#[rustfmt::skip]
pub(super) const NOT_PAST: &[&str] = &[
    "abed", "amoled", "bed", "biped", "bobsled", "centiped", "coed", "cred", "crooked", "daybed",
    "deathbed", "embed", "flatbed", "hatred", "hotbed", "hundred", "imbed", "infrared", "jagged",
    "kindred", "moped", "naked", "oled", "purebred", "quadruped", "ragged", "rugged", "sacred", "seabed",
    "shred", "sickbed", "sled", "sunbed", "testbed", "thoroughbred", "toolshed", "waterbed", "watershed",
    "wicked", "wretched",
];

/// What looks like a prefix on an irregular past and is another word (`pre` + `sent`).
#[rustfmt::skip]
pub(super) const NOT_PREFIXED: &[&str] = &[
    "misfit", "outbound", "outcast", "outcome", "outfit", "outlet", "outset", "overground", "present",
    "relent", "underground", "unfit", "unknown",
];

/// Prefixes that leave an irregular verb's forms as they are: `rebuilt`, `overpaid`, `unsent`.
pub(super) const PREFIXES: &[&str] = &["mis", "out", "over", "pre", "re", "un", "under"];

/// Regular verbs that services use. Only suggestions read it, the rules never do.
#[rustfmt::skip]
pub(super) const REGULAR: &[&str] = &[
    "abandon", "abort", "accept", "access", "acknowledge", "acquire", "activate", "adapt", "add",
    "adjust", "admit", "aggregate", "agree", "alert", "align", "allocate", "allow", "amend", "analyze",
    "annotate", "announce", "answer", "append", "apply", "appoint", "approve", "archive", "arrange",
    "arrive", "ask", "assemble", "assign", "attach", "attempt", "audit", "authenticate", "authorize",
    "back", "backfill", "balance", "ban", "bill", "block", "book", "boost", "bootstrap", "bounce",
    "browse", "buffer", "bundle", "cache", "calculate", "call", "cancel", "capture", "change", "charge",
    "chat", "check", "claim", "classify", "clean", "clear", "click", "clone", "close", "collect",
    "commit", "compare", "compensate", "compile", "complete", "compress", "compute", "conclude",
    "configure", "confirm", "connect", "consume", "contact", "contain", "continue", "control", "convert",
    "copy", "correct", "crash", "crawl", "create", "credit", "crop", "cycle", "debit", "debug", "decide",
    "declare", "decline", "decode", "decommission", "decrease", "decrement", "decrypt", "deduct",
    "deduplicate", "defer", "define", "delay", "delegate", "delete", "deliver", "demote", "deny",
    "depart", "deploy", "deposit", "deprecate", "derive", "describe", "destroy", "detach", "detect",
    "determine", "develop", "die", "disable", "discard", "disconnect", "discover", "dismiss", "dispatch",
    "display", "dispute", "distribute", "donate", "downgrade", "download", "drain", "drop", "dump",
    "duplicate", "earn", "edit", "elapse", "elect", "email", "emit", "enable", "encode", "encrypt", "end",
    "enforce", "enqueue", "enrich", "enroll", "ensure", "enter", "erase", "escalate", "estimate",
    "evaluate", "evict", "examine", "exceed", "exchange", "exclude", "execute", "exhaust", "exit",
    "expand", "expire", "explain", "export", "expose", "extend", "extract", "fail", "fetch", "file",
    "fill", "filter", "finalize", "finish", "fire", "fix", "flag", "flip", "flush", "focus", "follow",
    "force", "format", "forward", "free", "fulfill", "fund", "gather", "generate", "grant", "group",
    "guarantee", "halt", "handle", "happen", "harvest", "heal", "help", "hire", "host", "identify",
    "ignore", "import", "improve", "include", "increase", "increment", "index", "inform", "ingest",
    "initialize", "initiate", "insert", "inspect", "install", "instruct", "integrate", "interrupt",
    "introduce", "invalidate", "invite", "invoice", "invoke", "issue", "join", "judge", "jump", "kick",
    "kill", "label", "land", "lapse", "launch", "license", "like", "limit", "link", "list", "listen",
    "load", "localize", "locate", "lock", "log", "map", "mark", "match", "measure", "mention", "merge",
    "message", "migrate", "mirror", "miss", "modify", "monitor", "mount", "move", "mute", "name",
    "nominate", "normalize", "note", "notify", "observe", "obtain", "occur", "offboard", "offer", "omit",
    "onboard", "open", "operate", "opt", "optimize", "orchestrate", "order", "organize", "own", "pack",
    "package", "page", "park", "parse", "partition", "pass", "patch", "pause", "perform", "permit",
    "persist", "pick", "pin", "ping", "place", "plan", "play", "poll", "populate", "position", "post",
    "postpone", "predict", "prefer", "prepare", "press", "prevent", "price", "print", "prioritize",
    "process", "procure", "produce", "promote", "prompt", "propagate", "propose", "protect", "provide",
    "provision", "proxy", "prune", "publish", "pull", "purchase", "purge", "push", "qualify",
    "quarantine", "query", "queue", "quote", "raise", "rank", "rate", "reach", "receive", "recommend",
    "reconcile", "reconnect", "record", "recover", "recycle", "redeem", "redirect", "reduce", "refer",
    "refine", "refresh", "refund", "refuse", "register", "reindex", "reject", "relate", "release",
    "reload", "remember", "remind", "remove", "rename", "render", "renew", "reopen", "repair", "repeat",
    "replace", "replicate", "reply", "report", "request", "require", "reschedule", "reserve", "resize",
    "resolve", "respond", "restart", "restore", "restrict", "resume", "retain", "retire", "retry",
    "return", "reveal", "reverse", "revert", "review", "revise", "revoke", "reward", "roll", "rotate",
    "route", "sample", "save", "scale", "scan", "schedule", "score", "scrape", "screen", "seal", "search",
    "secure", "select", "separate", "serialize", "serve", "settle", "share", "ship", "sign", "signal",
    "skip", "snooze", "solve", "sort", "spawn", "stage", "stall", "start", "stop", "store", "stream",
    "strip", "submit", "subscribe", "succeed", "suggest", "summarize", "supply", "support", "surrender",
    "suspend", "swap", "switch", "sync", "synchronize", "tag", "target", "terminate", "test", "throttle",
    "tick", "time", "toggle", "touch", "trace", "track", "trade", "train", "transfer", "transform",
    "transition", "translate", "transmit", "trigger", "trim", "truncate", "trust", "try", "tune", "turn",
    "type", "unarchive", "unassign", "unban", "unblock", "unfollow", "uninstall", "unlink", "unlock",
    "unpin", "unregister", "unsubscribe", "update", "upgrade", "upload", "upsert", "use", "validate",
    "verify", "version", "view", "visit", "void", "vote", "wait", "waive", "walk", "warn", "watch",
    "welcome", "whitelist", "work", "wrap", "yield",
];

/// Verbs of more than one syllable that double their last letter before `-ed`.
#[rustfmt::skip]
pub(super) const DOUBLING: &[&str] = &[
    "admit", "bootstrap", "commit", "control", "debug", "defer", "emit", "equip", "format", "infer",
    "occur", "omit", "patrol", "permit", "prefer", "refer", "regret", "remit", "submit", "transfer",
    "transmit", "unban", "unpin", "unplug", "unwrap", "unzip",
];
