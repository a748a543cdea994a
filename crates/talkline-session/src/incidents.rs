//! Failures inside a session: counted by diagnosis, and told once each.

use std::fmt;

use talkline_dialect::Incident;

use crate::summary::IncidentCount;

/// Who is told of the first failure of each kind.
pub(crate) struct Observer(Box<dyn FnMut(&Incident<'_>) + Send>);

impl Observer {
    pub(crate) fn new(observer: impl FnMut(&Incident<'_>) + Send + 'static) -> Self {
        Self(Box::new(observer))
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

/// The failures of one session. There are only as many codes as the table of diagnoses has, so the list
/// is short whatever the upstream says.
#[derive(Debug, Default)]
pub(crate) struct Incidents {
    counts: Vec<IncidentCount>,
    observer: Option<Observer>,
}

impl Incidents {
    pub(crate) fn observe(&mut self, observer: Observer) {
        self.observer = Some(observer);
    }

    pub(crate) fn count(&mut self, incident: &Incident<'_>) {
        let code = incident.diagnosis_code();
        if let Some(known) = self.counts.iter_mut().find(|known| known.code == code) {
            known.count += 1;
            return;
        }
        self.counts.push(IncidentCount { code, count: 1 });
        if let Some(Observer(tell)) = &mut self.observer {
            tell(incident);
        }
    }

    pub(crate) fn into_counts(self) -> Vec<IncidentCount> {
        self.counts
    }
}
