//! What a token says about its bearer.

super::named_enum! {
    /// Which models a person may use.
    #[derive(Default)]
    pub enum Tier {
        /// Free models only.
        #[default]
        Free = "free",
        /// May use paid models.
        Premium = "premium",
    }
}

super::named_enum! {
    /// What a person may do.
    #[derive(Default)]
    pub enum Role {
        /// Their own conversations.
        #[default]
        User = "user",
        /// The knowledge base as well.
        Admin = "admin",
    }
}
