//! What runs inside the server: one script a decision, so that nothing comes between check and count.
//!
//! Each reads the server's clock. A script that reads the clock and writes needs a server that
//! replicates effects: Redis 5 and later, every Valkey.

use redis::Script;

/// The scripts, hashed once.
pub(crate) struct Scripts {
    pub(crate) lease: Script,
    pub(crate) renew: Script,
    pub(crate) give_back: Script,
    pub(crate) spend: Script,
    pub(crate) use_once: Script,
    pub(crate) revoke: Script,
    pub(crate) revoked: Script,
    pub(crate) ping: Script,
}

impl Default for Scripts {
    fn default() -> Self {
        Self {
            lease: Script::new(LEASE),
            renew: Script::new(RENEW),
            give_back: Script::new("return redis.call('ZREM', KEYS[1], ARGV[1])"),
            spend: Script::new(SPEND),
            use_once: Script::new(USE_ONCE),
            revoke: Script::new(REVOKE),
            revoked: Script::new("return redis.call('EXISTS', unpack(KEYS))"),
            ping: Script::new("return redis.call('TIME')"),
        }
    }
}

/// Keys: sessions, starts, the day's usage, then whatever may be revoked. Arguments: session, time to
/// live in ms, and the limits on sessions, starts, responses and tokens, -1 for none.
const LEASE: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local session, ttl = ARGV[1], tonumber(ARGV[2])
local sessions_max, starts_max = tonumber(ARGV[3]), tonumber(ARGV[4])
local responses_max, tokens_max = tonumber(ARGV[5]), tonumber(ARGV[6])
for i = 4, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then return {'revoked', '0', '0'} end
end
local day = redis.call('HMGET', KEYS[3], 'responses', 'tokens')
local responses, tokens = tonumber(day[1] or 0), tonumber(day[2] or 0)
if (responses_max >= 0 and responses >= responses_max) or (tokens_max >= 0 and tokens >= tokens_max) then
  return {'day', day[1] or '0', day[2] or '0'}
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if sessions_max >= 0 and redis.call('ZCARD', KEYS[1]) >= sessions_max then
  return {'sessions', '0', '0'}
end
if starts_max >= 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - 60000)
  if redis.call('ZCARD', KEYS[2]) >= starts_max then
    local oldest = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
    local leaves = tonumber(oldest[2] or now) + 60000 - now
    return {'starts', string.format('%d', leaves), '0'}
  end
  redis.call('ZADD', KEYS[2], now, session)
  redis.call('PEXPIRE', KEYS[2], 60001)
end
redis.call('ZADD', KEYS[1], now + ttl, session)
redis.call('PEXPIRE', KEYS[1], ttl)
return {'ok', '0', '0'}
";

/// Key: sessions. Arguments: session, time to live in ms. A place that was forgotten meanwhile, by a
/// server that lost its memory, is written down again.
const RENEW: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
";

/// Key: the day's usage. Arguments: responses, tokens. Kept for two days, so that clocks of replicas may
/// disagree about midnight.
const SPEND: &str = r"
local responses = redis.call('HINCRBY', KEYS[1], 'responses', ARGV[1])
local tokens = redis.call('HINCRBY', KEYS[1], 'tokens', ARGV[2])
redis.call('EXPIRE', KEYS[1], 172800)
return {responses, tokens}
";

/// Keys: the token's use, its revocation. Argument: time to live in ms.
const USE_ONCE: &str = r"
if redis.call('EXISTS', KEYS[2]) == 1 then return 'revoked' end
if redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[1]) then return 'ok' end
return 'used'
";

/// Key: the revocation. Argument: time to live in ms. A longer one stays.
const REVOKE: &str = r"
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
end
return 1
";
