//! What the catalogue says of tables, policies and roles.

use shared::store::ServingRole;
use shared::testing::{Session, TestEnv};

/// Every table of the schema with what row-level security does for it.
const TABLES: &str = "
    SELECT c.relname::text, EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'user_id')::text,
           c.relrowsecurity::text, c.relforcerowsecurity::text, c.relispartition::text,
           (SELECT count(*) FROM pg_policy p WHERE p.polrelid = c.oid)::text
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'chat' AND c.relkind IN ('r', 'p') ORDER BY c.relname";

/// Every policy with what it allows and to whom.
const POLICIES: &str = "
    SELECT tablename::text, policyname::text, roles::text, COALESCE(qual, with_check), COALESCE(with_check, qual), cmd
    FROM pg_policies WHERE schemaname = 'chat' ORDER BY 1, 2";

/// Tables about nobody, where the grants say all: sqlx's own list of migrations, the knowledge base, where
/// notifications go, how far the ledger was read, what everybody has used of the budgets and whether that is counted, the queues, the
/// figures and the register of workers.
const NOBODYS: [&str; 19] = [
    "_sqlx_migrations",
    "budget_keeping",
    "budget_totals",
    "figures",
    "knowledge_chunks",
    "knowledge_collections",
    "knowledge_documents",
    "knowledge_ingestions",
    "knowledge_profiles",
    "knowledge_questions",
    "knowledge_refused",
    "knowledge_rows",
    "knowledge_synonyms",
    "knowledge_vectors",
    "knowledge_words",
    "ledger_readers",
    "notification_destinations",
    "queues",
    "workers",
];

/// What is wrong with the tables and policies of the schema.
async fn breaches(session: &mut Session) -> Vec<String> {
    let mut breaches = Vec::new();
    for row in session.rows(TABLES).await.unwrap() {
        let [table, personal, enabled, forced, partition, policies] = &row[..] else {
            panic!("six columns");
        };
        let table = table.as_deref().unwrap();
        let is = |column: &Option<String>| column.as_deref() == Some("true");
        if !is(personal) {
            if !NOBODYS.contains(&table) {
                breaches.push(format!("{table} has no user_id"));
            }
            continue;
        }
        if !is(enabled) {
            breaches.push(format!("{table} is not enabled"));
        }
        if !is(forced) {
            breaches.push(format!("{table} is not forced"));
        }
        match (is(partition), policies.as_deref()) {
            (false, Some("0")) => breaches.push(format!("{table} has no policy")),
            (true, Some(count)) if count != "0" => {
                breaches.push(format!("{table}, a partition, has policies of its own"));
            }
            _ => {}
        }
    }
    for row in session.rows(POLICIES).await.unwrap() {
        let texts: Vec<&str> = row
            .iter()
            .map(|text| text.as_deref().unwrap_or(""))
            .collect();
        let [table, name, roles, using, check, verb] = texts[..] else {
            panic!("six columns");
        };
        let own = "(user_id = chat.current_user_id())";
        let sweep = "chat.is_sweep()";
        let allowed = match roles {
            "{balas_worker}" => [own, sweep].contains(&using) && using == check,
            // Those who keep the knowledge base read what it did not answer, and decide about proposals.
            "{balas_api}" if using == "chat.is_editor()" => match (table, verb) {
                ("support_questions" | "knowledge_proposals", "SELECT")
                | ("knowledge_proposals", "UPDATE") => check == using,
                _ => false,
            },
            "{balas_api,balas_worker}" | "{balas_api}" => using == own && check == own,
            // Operators read the work of everybody, and write a trail of what is nobody's.
            "{balas_operator}" if table == "audit_log" => {
                using == "true" && check == "(user_id IS NULL)"
            }
            "{balas_operator}" => {
                [
                    "generations",
                    "notifications",
                    "support_questions",
                    "usage_tracking",
                ]
                .contains(&table)
                    && using == "true"
                    && verb == "SELECT"
            }
            _ => false,
        };
        if !allowed {
            breaches.push(format!(
                "policy {name} of {table} lets {roles} at {using} / {check}"
            ));
        }
    }
    breaches
}

#[tokio::test]
async fn every_table_with_a_user_id_is_forced_and_has_a_policy() {
    let env = TestEnv::new().await;
    let mut session = env.session().await;
    let before = session.rows(TABLES).await.unwrap().len();
    let mut worker = env.session_as(ServingRole::Worker).await;
    worker
        .run("SELECT chat.ensure_partitions(9)")
        .await
        .unwrap();
    let tables = session.rows(TABLES).await.unwrap();
    assert!(
        tables.len() >= before + 3 * 6,
        "six more months of three tables"
    );
    let partitions = tables
        .iter()
        .filter(|row| row[4].as_deref() == Some("true"));
    assert!(partitions.count() >= 3 * (1 + 10), "with the default ones");
    assert_eq!(breaches(&mut session).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_careless_table_is_noticed() {
    let env = TestEnv::new().await;
    let mut session = env.session().await;
    let statements = [
        (
            "CREATE TABLE chat.careless (user_id uuid)",
            "careless is not enabled",
        ),
        (
            "ALTER TABLE chat.careless ENABLE ROW LEVEL SECURITY",
            "careless is not forced",
        ),
        (
            "ALTER TABLE chat.careless FORCE ROW LEVEL SECURITY",
            "careless has no policy",
        ),
        (
            "CREATE POLICY everything ON chat.careless USING (true)",
            "policy everything of careless lets {public} at true / true",
        ),
        (
            "ALTER POLICY everything ON chat.careless TO balas_api USING (chat.is_sweep()) WITH CHECK (chat.is_sweep())",
            "policy everything of careless lets {balas_api} at chat.is_sweep() / chat.is_sweep()",
        ),
        (
            "ALTER POLICY everything ON chat.careless TO balas_api USING (chat.is_editor()) WITH CHECK (chat.is_editor())",
            "policy everything of careless lets {balas_api} at chat.is_editor() / chat.is_editor()",
        ),
        (
            "ALTER POLICY everything ON chat.careless TO balas_operator USING (true) WITH CHECK (true)",
            "policy everything of careless lets {balas_operator} at true / true",
        ),
        (
            "DROP TABLE chat.careless; CREATE TABLE chat.notes (note text)",
            "notes has no user_id",
        ),
        (
            "ALTER TABLE chat.messages_default NO FORCE ROW LEVEL SECURITY",
            "messages_default is not forced",
        ),
    ];
    for (statement, breach) in statements {
        session.run(statement).await.unwrap();
        let found = breaches(&mut session).await;
        assert!(found.contains(&breach.to_owned()), "{statement}: {found:?}");
    }
}

#[tokio::test]
async fn the_serving_roles_are_nobody_special() {
    let env = TestEnv::new().await;
    let mut session = env.session().await;
    let powers = session
        .rows(
            "SELECT rolname::text FROM pg_roles WHERE rolname IN ('balas_owner', 'balas_api', 'balas_worker', 'balas_operator')
               AND NOT rolsuper AND NOT rolbypassrls AND NOT rolcreaterole AND NOT rolcreatedb AND NOT rolreplication
             ORDER BY 1",
        )
        .await
        .unwrap();
    let names: Vec<_> = powers
        .iter()
        .map(|row| row[0].as_deref().unwrap())
        .collect();
    assert_eq!(
        names,
        ["balas_api", "balas_operator", "balas_owner", "balas_worker"]
    );
    let none = |what: &'static str| {
        let env = &env;
        async move { assert_eq!(env.value(what).await.as_deref(), Some("0"), "{what}") }
    };
    // Whatever they own, in this database or as a database.
    none(
        "SELECT count(*) FROM pg_shdepend WHERE deptype = 'o' AND refclassid = 'pg_authid'::regclass
           AND refobjid IN ('balas_api'::regrole, 'balas_worker'::regrole, 'balas_operator'::regrole)
           AND dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))",
    )
    .await;
    // Whatever they could become.
    none(
        "SELECT count(*) FROM pg_auth_members
         WHERE member IN ('balas_api'::regrole, 'balas_worker'::regrole, 'balas_operator'::regrole)",
    )
    .await;
    // Whatever they may destroy, or do around the policies.
    none(
        "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'chat',
                unnest(ARRAY['balas_api', 'balas_worker', 'balas_operator']) role, unnest(ARRAY['TRUNCATE', 'TRIGGER', 'REFERENCES']) power
         WHERE c.relkind IN ('r', 'p') AND has_table_privilege(role, c.oid, power)",
    )
    .await;
    // A partition is read through its parent only.
    none(
        "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'chat',
                unnest(ARRAY['balas_api', 'balas_worker', 'balas_operator']) role,
                unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) power
         WHERE c.relispartition AND has_table_privilege(role, c.oid, power)",
    )
    .await;
    // Functions that run as their owner are for the worker, and look nothing up in the caller's path.
    none(
        "SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace AND n.nspname = 'chat'
         WHERE p.prosecdef AND (has_function_privilege('balas_api', p.oid, 'EXECUTE')
           OR has_function_privilege('balas_operator', p.oid, 'EXECUTE')
           OR has_function_privilege('public', p.oid, 'EXECUTE')
           OR NOT EXISTS (SELECT FROM unnest(p.proconfig) setting WHERE setting LIKE 'search_path=%'))",
    )
    .await;
}

#[tokio::test]
async fn no_role_can_change_the_rules() {
    let env = TestEnv::new().await;
    for role in [ServingRole::Api, ServingRole::Worker, ServingRole::Operator] {
        let mut session = env.session_as(role).await;
        for statement in [
            "ALTER TABLE chat.messages DISABLE ROW LEVEL SECURITY",
            "ALTER TABLE chat.messages NO FORCE ROW LEVEL SECURITY",
            "CREATE POLICY mine ON chat.messages USING (true)",
            "DROP POLICY own_rows ON chat.messages",
            "CREATE OR REPLACE FUNCTION chat.is_sweep() RETURNS boolean LANGUAGE sql RETURN true",
            "CREATE TABLE chat.copies (row text)",
            "CREATE TABLE public.copies (row text)",
            "TRUNCATE chat.messages",
            "SET row_security = off; SELECT * FROM chat.messages",
        ] {
            let code = session.run(statement).await.map_err(|refused| refused.code);
            assert_eq!(code, Err("42501".to_owned()), "{role:?}: {statement}");
        }
    }
    let mut api = env.session_as(ServingRole::Api).await;
    let refused = api
        .run("SELECT chat.ensure_partitions()")
        .await
        .unwrap_err();
    assert_eq!(refused.code, "42501", "{refused:?}");
}
