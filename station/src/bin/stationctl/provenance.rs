//! What the log proves, checked offline: needs no station, only its files.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use factory_station::{
    provenance::{
        audit::{Audit, audit, when},
        proof,
        signed::{self, HeadFile},
    },
    record::RunId,
};
use sha2::{Digest as _, Sha256};

#[derive(Args)]
pub struct Provenance {
    #[command(subcommand)]
    act: Act,
}

#[derive(Subcommand)]
enum Act {
    /// Checks a whole log: every record, every signed head. Ends with 1 when anything is wrong.
    Verify(Log),
    /// Lists the signed heads of a log.
    Heads(Heads),
    /// Exports the proof of one unit's result.
    Prove(Prove),
    /// Checks such a proof by itself, and prints what it proves.
    Check(Check),
}

#[derive(Args)]
struct Log {
    /// The folder that holds the log's segments. While the station runs, the record that it is just writing may
    /// look cut off.
    #[arg(long)]
    state: PathBuf,
    /// A PEM file with the provenance key's certificate, or that of a CA above it. Without it, each head is only
    /// checked against the certificate that it brought along, which proves nothing of who signed.
    #[arg(long)]
    certificate: Option<PathBuf>,
    /// A head that the MES kept: shows that a log was cut off or rolled back. May be given more than once.
    #[arg(long)]
    head: Vec<PathBuf>,
}

#[derive(Args)]
struct Heads {
    /// The folder that holds the log's segments.
    #[arg(long)]
    state: PathBuf,
    /// Also writes each head to a file in this folder, which `verify --head` takes.
    #[arg(long)]
    export: Option<PathBuf>,
}

#[derive(Args)]
struct Prove {
    /// The folder that holds the log's segments.
    #[arg(long)]
    state: PathBuf,
    /// The run's id.
    #[arg(long)]
    run: RunId,
    /// Where the proof goes; must not be there yet.
    #[arg(long)]
    out: PathBuf,
}

#[derive(Args)]
struct Check {
    /// The proof.
    file: PathBuf,
    /// A PEM file with the provenance key's certificate, or that of a CA above it.
    #[arg(long)]
    certificate: PathBuf,
}

impl Provenance {
    pub fn run(self) -> anyhow::Result<()> {
        match self.act {
            Act::Verify(log) => log.verify(),
            Act::Heads(heads) => heads.list(),
            Act::Prove(prove) => prove.export(),
            Act::Check(check) => check.check(),
        }
    }
}

impl Log {
    fn verify(self) -> anyhow::Result<()> {
        let trusted = match &self.certificate {
            Some(path) => signed::read_certificates(path)?,
            None => Vec::new(),
        };
        let kept = self.head.iter().map(|path| signed::read_head(path)).collect::<Result<Vec<_>, _>>()?;
        let audit = audit(&self.state, &trusted, &kept)?;
        show(&audit);
        if trusted.is_empty() {
            println!("who signed was not checked; name the certificate that you trust with --certificate");
        }
        if kept.is_empty() {
            println!(
                "whether the log was cut off or rolled back as a whole only a head from the MES shows (--head)"
            );
        }
        if audit.findings.is_empty() {
            println!("nothing is wrong with the log");
            return Ok(());
        }
        for finding in &audit.findings {
            println!("WRONG: {finding}");
        }
        bail!(
            "the log is not what it was: {} findings, the first of which may have caused the others",
            audit.findings.len()
        )
    }
}

fn show(audit: &Audit) {
    println!(
        "records {} to {} in {} segments, {} runs closed",
        audit.first, audit.last, audit.segments, audit.closed_runs
    );
    let sound = audit.heads.iter().filter(|head| head.sound).count();
    println!("heads: {}, of which {sound} are right", audit.heads.len());
    if let Some(head) = audit.heads.last() {
        let statement = &head.statement;
        println!(
            "the last head covers up to record {}, {} runs, {}",
            statement.last_sequence,
            statement.closed_runs,
            when(statement.time)
        );
    }
    println!("runs behind the last head, of which nothing is signed yet: {}", audit.unsigned_runs);
}

impl Heads {
    fn list(self) -> anyhow::Result<()> {
        let audit = audit(&self.state, &[], &[])?;
        for head in &audit.heads {
            let statement = &head.statement;
            let signer = head.head.certificates.first().map(|der| Sha256::digest(&**der));
            let signer = signer.map_or_else(String::new, |hash| data_encoding::HEXLOWER.encode(&hash[..8]));
            println!(
                "record {}: {} to {}, {} runs, {}, certificate {signer}, {}",
                head.record,
                statement.first_sequence,
                statement.last_sequence,
                statement.closed_runs,
                when(statement.time),
                if head.sound { "right" } else { "WRONG" }
            );
            if let Some(folder) = &self.export {
                fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
                let name = format!("{}-{:020}.json", statement.station, statement.last_sequence);
                let path = folder.join(name);
                let text = serde_json::to_vec(&HeadFile::from(&head.head))?;
                fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            }
        }
        Ok(())
    }
}

impl Prove {
    fn export(self) -> anyhow::Result<()> {
        let proof = proof::prove(&self.state, self.run)?;
        let mut file = fs::File::create_new(&self.out).with_context(|| {
            format!("cannot create {}; name a file that is not there", self.out.display())
        })?;
        std::io::Write::write_all(&mut file, &proof)
            .with_context(|| format!("cannot write {}", self.out.display()))?;
        println!("{} proves the result of run {}", self.out.display(), self.run);
        Ok(())
    }
}

impl Check {
    fn check(self) -> anyhow::Result<()> {
        let proven = proof::check(&self.file, &signed::read_certificates(&self.certificate)?)?;
        let (closed, statement) = (&proven.closed, &proven.statement);
        println!("station {}, record {} of its log", statement.station, proven.sequence);
        match &closed.opened.order {
            Some(order) => println!("run {} of order {order}", closed.opened.run),
            None => println!("run {} of a golden unit", closed.opened.run),
        }
        println!("serial {}", closed.opened.serial);
        println!("outcome {}", closed.outcome);
        if let Some(identity) = &closed.findings.identity {
            println!("endpoint {}", identity.endpoint_name);
            println!("enrolment id {}", identity.enrolment_id);
        }
        println!("ended {}", humantime::format_rfc3339_seconds(closed.ended));
        println!("journalled {}", humantime::format_rfc3339_seconds(proven.journalled));
        println!(
            "under a head signed for records up to {}, {}",
            statement.last_sequence,
            when(statement.time)
        );
        Ok(())
    }
}
