//! The signer's books of a work order: how many issuances are where, and where each of them is.

use std::collections::HashMap;

use factory_proto::{
    disposition::Disposition,
    ids::OrderId,
    signer::{GetOrderRequest, IssuancePlace, ListIssuancesRequest, Order},
};
use tonic::Code;
use uuid::Uuid;

use super::{ANSWER, Client, Signer, SignerError};

/// As many as the signer gives at a time.
const PAGE: u32 = 1000;
/// More than any order allows: quantity, spare and replacements are a million each at most.
const MOST: usize = 3_000_000;

/// The signer's books of an order, all stations together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SignerBooks {
    /// Issuances counted for new units.
    pub units_counted: u32,
    /// Issuances counted for devices that had one.
    pub replacements_counted: u32,
    /// How many are open.
    pub open: u32,
    /// How many units left the factory.
    pub shipped: u32,
    /// How many are set aside.
    pub quarantined: u32,
    /// How many were destroyed.
    pub scrapped: u32,
    /// How many issuances were replaced.
    pub superseded: u32,
    /// Each of them.
    pub issuances: HashMap<Uuid, Reckoned>,
}

/// Where an issuance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reckoned {
    /// The name of its device.
    pub endpoint_name: String,
    /// In the books.
    pub place: Place,
}

/// Where an issuance is reckoned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Nobody has said what became of its unit.
    Open,
    /// Its unit left the factory.
    Shipped,
    /// Its unit is set aside.
    Quarantined,
    /// Its unit was destroyed.
    Scrapped,
    /// Another one replaced it.
    Superseded,
}

impl Place {
    /// Where one is that was not replaced, by what was said of its unit.
    pub fn of(said: Option<Disposition>) -> Self {
        match said {
            None => Self::Open,
            Some(Disposition::Shipped) => Self::Shipped,
            Some(Disposition::Quarantined) => Self::Quarantined,
            Some(Disposition::Scrapped) => Self::Scrapped,
        }
    }

    fn told(wire: IssuancePlace) -> Result<Self, SignerError> {
        match wire {
            IssuancePlace::Open => Ok(Self::Open),
            IssuancePlace::Shipped => Ok(Self::Shipped),
            IssuancePlace::Quarantined => Ok(Self::Quarantined),
            IssuancePlace::Scrapped => Ok(Self::Scrapped),
            IssuancePlace::Superseded => Ok(Self::Superseded),
            IssuancePlace::Unspecified => Err(SignerError::Strange(
                "it has an issuance in a place that this station does not know".into(),
            )),
        }
    }
}

impl Signer {
    /// Asks for the books of an order; those of one that the signer never opened are empty.
    ///
    /// # Errors
    /// It cannot be asked, or answers what cannot be.
    pub async fn books(&self, order: &OrderId) -> Result<SignerBooks, SignerError> {
        let get = |mut client: Client| {
            let request = GetOrderRequest { work_order: order.to_string() };
            async move { client.get_order(request).await }
        };
        let Some(told) = self.found(get).await? else { return Ok(SignerBooks::default()) };
        let mut books = SignerBooks::from(told);
        let (mut page_token, mut told) = (String::new(), 0);
        loop {
            let request = ListIssuancesRequest { work_order: order.to_string(), page_size: PAGE, page_token };
            let list = |mut client: Client| {
                let request = request.clone();
                async move { client.list_issuances(request).await }
            };
            let Some(page) = self.found(list).await? else { return Ok(books) };
            told += page.issuances.len();
            if page.issuances.is_empty() && !page.next_page_token.is_empty() {
                return Err(SignerError::Strange("it gives pages without issuances".into()));
            }
            for issuance in page.issuances {
                let place = Place::told(issuance.place())?;
                let id = Uuid::try_parse(&issuance.issuance_id).map_err(|_| {
                    SignerError::Strange(format!("{:?} is no issuance id", issuance.issuance_id))
                })?;
                books.issuances.insert(id, Reckoned { endpoint_name: issuance.endpoint_name, place });
            }
            if told > MOST {
                return Err(SignerError::Strange(format!("it has more than {MOST} issuances for one order")));
            }
            if page.next_page_token.is_empty() {
                return Ok(books);
            }
            page_token = page.next_page_token;
        }
    }

    async fn found<T, F>(&self, call: impl Fn(Client) -> F) -> Result<Option<T>, SignerError>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let call = |client: Client| {
            let answer = call(client);
            async move {
                match answer.await {
                    Ok(answer) => Ok(answer.map(Some)),
                    Err(status) if status.code() == Code::NotFound => Ok(tonic::Response::new(None)),
                    Err(status) => Err(status),
                }
            }
        };
        self.patiently(ANSWER, call).await
    }
}

impl From<Order> for SignerBooks {
    fn from(told: Order) -> Self {
        Self {
            units_counted: told.units_counted,
            replacements_counted: told.replacements_counted,
            open: told.open,
            shipped: told.shipped,
            quarantined: told.quarantined,
            scrapped: told.scrapped,
            superseded: told.superseded,
            issuances: HashMap::new(),
        }
    }
}
