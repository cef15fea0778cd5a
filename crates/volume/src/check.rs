//! Looking for what is not as it should be, and mending what can be mended without losing data.

use std::collections::BTreeSet;
use std::path::Path;

use crate::acquire::is_dead_worker;
use crate::attach::ATTACHED;
use crate::mounted::is_mount;
use crate::option::{self, Backing};
use crate::{Result, Volume, Volumes, names, plugin, project, record, references};

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// "damaged": the record cannot be read. "nameless": the name is lost, the volume goes by its id. "unlimited": its limit
    /// is another than was asked for, or is not enforced.
    /// "stale-reference": its holder is gone. "lost-reference": what it holds is gone. "owed-unmount": a driver was not
    /// told. "lost-volume": its driver does not know it.
    pub kind: &'static str,
    /// The volume, by name or id.
    pub subject: String,
    /// For people.
    pub detail: String,
    /// It was mended.
    pub repaired: bool,
}

impl Volumes {
    /// Looks through all volumes and references; with `repair` mends what it can.
    ///
    /// # Errors
    /// The root or the database cannot be read; a repair failed.
    pub fn check(&self, repair: bool) -> Result<Vec<Finding>> {
        let mut found = Vec::new();
        let mut plugins: BTreeSet<String> = BTreeSet::new();
        for (id, name) in names::scan(&self.volumes())?.volumes {
            match record::read(&self.directory(&id), &id, &name) {
                Ok(Some(volume)) => {
                    if option::backing_of(&volume).is_ok_and(|backing| backing == Backing::Plugin) {
                        plugins.insert(volume.driver.clone());
                    }
                    self.check_name(&volume, &name, repair, &mut found)?;
                    self.check_limit(&volume, repair, &mut found)?;
                }
                Ok(None) => {}
                // Its data stays for people to look at; a new record would have to be guessed.
                Err(error) => found.push(finding("damaged", &name, error.to_string(), false)),
            }
        }
        self.check_references(repair, &mut found)?;
        self.check_plugins(&plugins, &mut found)?;
        let owed = self.references.read("read unmounts", references::unmounts)?;
        let left = if repair { self.undo_owed(&owed) } else { owed.iter().collect() };
        found.extend(owed.iter().map(|unmount| {
            let detail = format!("driver {} was not told that {} is not used any more", unmount.driver, unmount.name);
            finding("owed-unmount", &unmount.name, detail, !left.contains(&unmount))
        }));
        if repair {
            crate::remove::sweep(self);
        }
        Ok(found)
    }

    fn check_name(&self, volume: &Volume, name: &str, repair: bool, found: &mut Vec<Finding>) -> Result<()> {
        if name != volume.id || volume.name == volume.id || record::check_name(&volume.name).is_err() {
            return Ok(());
        }
        let named = repair
            && self.references.write("give a name back", |_| {
                names::take(&self.volumes(), &volume.name, &volume.id).map_err(Into::into)
            })?;
        found.push(finding("nameless", name, format!("it was called {}", volume.name), named));
        Ok(())
    }

    /// A limit by project quota can be lost with a mount option, or when the data came from another file system.
    fn check_limit(&self, volume: &Volume, repair: bool, found: &mut Vec<Finding>) -> Result<()> {
        let Some(wanted) = volume.quota() else { return Ok(()) };
        let data = self.directory(&volume.id).join("_data");
        let detail = match project::usage(&data) {
            _ if !project::supported(&self.root) => "project quotas are not enforced here (mount with prjquota)".into(),
            None => "its data is in no project; an import into a new volume has one".into(),
            Some(usage) if usage.limit.abs_diff(wanted) < 1024 => return Ok(()),
            Some(usage) => format!("the limit is {} instead of {wanted} bytes", usage.limit),
        };
        let repaired = repair && project::supported(&self.root) && project::change(&data, wanted)?;
        found.push(finding("unlimited", &volume.name, detail, repaired));
        Ok(())
    }

    /// References by what is not there any more: directories that nothing is mounted on, processes that have ended.
    fn check_references(&self, repair: bool, found: &mut Vec<Finding>) -> Result<()> {
        for (id, consumers) in self.references.all()? {
            let volume = self.read_id(&id).ok().flatten();
            for consumer in consumers {
                let stale = match consumer.strip_prefix(ATTACHED) {
                    Some(directory) => !is_mount(Path::new(directory)),
                    None => is_dead_worker(&consumer),
                };
                let (kind, detail) = match (&volume, stale) {
                    (_, true) => ("stale-reference", format!("{consumer} is gone")),
                    (None, _) if !self.directory(&id).exists() => {
                        ("lost-reference", format!("{consumer} holds a volume that is not there"))
                    }
                    _ => continue,
                };
                if repair {
                    self.references.write("drop a reference", |transaction| {
                        references::take(transaction, &consumer, Some(&id)).map(drop).map_err(Into::into)
                    })?;
                }
                let subject = volume.as_ref().map_or(id.as_str(), |volume| &volume.name);
                found.push(finding(kind, subject, detail, repair));
            }
        }
        Ok(())
    }

    fn check_plugins(&self, drivers: &BTreeSet<String>, found: &mut Vec<Finding>) -> Result<()> {
        let listed = self.list(&crate::Filters::default(), false)?.volumes;
        for driver in drivers {
            let mine = listed.iter().filter(|volume| volume.driver == *driver);
            match plugin::names(self, driver) {
                Ok(known) => {
                    found.extend(mine.filter(|volume| !known.contains(&plugin::name_of(volume))).map(|volume| {
                        finding("lost-volume", &volume.name, format!("driver {driver} does not know it"), false)
                    }))
                }
                Err(error) => found.extend(mine.map(|volume| {
                    finding("lost-volume", &volume.name, format!("its driver cannot be asked: {error}"), false)
                })),
            }
        }
        Ok(())
    }
}

fn finding(kind: &'static str, subject: &str, detail: String, repaired: bool) -> Finding {
    Finding { kind, subject: subject.into(), detail, repaired }
}
