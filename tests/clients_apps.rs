//! Frameworks and libraries of applications through hotring: caches, rate limiters, queues of jobs.
//!
//! What they do is in `clients/`; `setup` installs them. What is not installed is told of and skipped. Those whose keys have
//! no hash tags and stand together in scripts and transactions run on a pool of one shard.

mod support;

use support::Stand;

#[test]
fn django_cache_and_django_redis() {
    Stand::over(3).python("apps", "django_cache.py");
}

#[test]
fn limits() {
    Stand::over(3).python("apps", "limiters.py");
}

#[test]
fn rate_limiter_flexible() {
    Stand::over(3).node("rate_limiter.js");
}

#[test]
fn bullmq_with_a_hash_tag() {
    Stand::over(3).node("bullmq.js");
}

#[test]
fn celery_with_a_hash_tag() {
    Stand::over(3).python("apps", "celery_tasks.py");
}

#[test]
fn celery_on_one_shard() {
    Stand::over(1).python("apps", "celery_tasks.py");
}

#[test]
fn rq_on_one_shard() {
    Stand::over(1).python("apps", "rq_jobs.py");
}

#[test]
fn huey_on_one_shard() {
    Stand::over(1).python("apps", "huey_tasks.py");
}
