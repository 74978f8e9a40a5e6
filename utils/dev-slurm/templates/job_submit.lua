-- `dev-slurm strict` makes the cluster as demanding as a production site: no defaults for account and time.
local strict = $strict

function slurm_job_submit(job, _partitions, _uid)
  if strict and job.account == nil then
    slurm.log_user("No account given: use --account")
    return slurm.ESLURM_INVALID_ACCOUNT
  end
  if strict and job.time_limit == slurm.NO_VAL then
    slurm.log_user("No time limit given: use --time")
    return slurm.ESLURM_INVALID_TIME_LIMIT
  end
  return slurm.SUCCESS
end

function slurm_job_modify(_job, _record, _partitions, _uid)
  return slurm.SUCCESS
end
